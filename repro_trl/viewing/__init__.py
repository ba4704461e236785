"""Looking at rewarded thoughts: trace files, the commands `score` and `inspect`, and what training shows of itself."""
