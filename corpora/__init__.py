"""The texts that ship with chargen."""
