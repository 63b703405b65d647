"""Pool server: a node process, its session workers, and the devices they drive."""
