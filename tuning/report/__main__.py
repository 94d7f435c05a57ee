"""``python -m tuning.report``."""

from tuning.report.command import main

if __name__ == "__main__":
    raise SystemExit(main())
