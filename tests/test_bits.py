from chargen.bits import bits


def test_a_fair_coin_is_one_bit():
    assert bits(0.6931471805599453) == 1
