"""What the project costs, side by side with what it is measured against: `make bench`."""
