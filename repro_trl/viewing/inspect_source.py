"""What `repro-trl inspect` is asked to show: the rows of files, of a dataset on the Hub or typed in, by prompt."""
