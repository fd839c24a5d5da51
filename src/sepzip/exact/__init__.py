"""Operations whose results are defined to the last bit on every device (docs/numerics.md).

Element by element they are IEEE float32 additions, subtractions, multiplications, divisions and
roundings; across elements they are sums of whole numbers. Each file holds one operation, forward and
backward.
"""
