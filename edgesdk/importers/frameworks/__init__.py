"""One exporter for each framework; `edgesdk.importers.job` says what each has to offer."""
