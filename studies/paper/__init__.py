"""What the studies of the paper share: its claims and how they are tested, what is trained, and the page that reports."""
