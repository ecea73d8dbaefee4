"""``python -m commons_events.cli``."""

from commons_events.cli import main

if __name__ == "__main__":
    main()
