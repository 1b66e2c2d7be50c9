"""``python -m dxmi``, for ``accelerate launch -m dxmi``."""

from dxmi.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
