"""Who made a record: keys, signatures, and whom this user trusts."""
