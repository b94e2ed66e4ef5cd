package emulate

// architectureCalls returns the calls that only older architectures have.
func architectureCalls() []call { return nil }

// narrowCalls and narrowDeviceCalls are the calls of 32-bit programs that are answered: none,
// since all are left to the kernel.
func narrowCalls() []call { return nil }

func narrowDeviceCalls() []call { return nil }

// olderDeviceCalls is deviceCalls for them.
func olderDeviceCalls() []call { return nil }
