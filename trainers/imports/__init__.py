"""What others trained or shared, taken in as runs that every command takes like its own."""
