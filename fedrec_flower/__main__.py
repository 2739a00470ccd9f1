"""`python -m fedrec_flower`."""

from fedrec_flower.cli.main import main

if __name__ == "__main__":
    main()
