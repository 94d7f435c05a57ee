"""``python -m pipelines.audit``."""

from pipelines.audit.command import main

if __name__ == "__main__":
    raise SystemExit(main())
