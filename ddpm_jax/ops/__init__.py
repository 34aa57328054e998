"""Operations done otherwise than XLA does them alone: the same results, sooner."""
