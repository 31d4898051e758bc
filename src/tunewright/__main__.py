"""`python -m tunewright`: what the launcher starts each rank with."""


from tunewright.cli import main
from tunewright.runtime import end_process

if __name__ == "__main__":
    end_process(main())
