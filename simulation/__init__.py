"""The whole loop in one process, on a clock that only the run moves: the hearts of all five services, without their shells."""
