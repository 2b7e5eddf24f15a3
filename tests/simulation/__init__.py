"""The world in which the cores run under one seed: clock, network and disk that misbehave on purpose."""
