"""`python -m fedrec_flower`."""

from fedrec_flower.cli import main

if __name__ == "__main__":
    main()
