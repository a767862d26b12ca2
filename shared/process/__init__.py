"""What every process needs: command line, supervision, admin port, metrics' labels, tracing."""
