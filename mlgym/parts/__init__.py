"""What YAML can name: small functions and classes that return or yield, and never emit events."""
