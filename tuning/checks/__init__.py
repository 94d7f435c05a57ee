"""What `avmend doctor` looks at, one small function per check."""
