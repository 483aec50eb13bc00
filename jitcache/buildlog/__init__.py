"""Reading a ninja build afterwards: its log, its graph, its critical path."""
