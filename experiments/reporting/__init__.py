"""What a run did, as report.md, report.json and report.png."""
