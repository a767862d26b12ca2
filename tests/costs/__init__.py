"""What one postback costs in each step, counted instead of timed."""
