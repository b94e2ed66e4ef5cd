package gzipblocks

// Sizes of blocks, in bytes. On the average a block has some 1 MiB.
const (
	smallest = 768 << 10
	largest  = 2 << 20
	// cutBits is how many bits of the hash are 0 where a block ends: behind the smallest
	// size that is so once in 256 KiB.
	cutBits = 18
)

// A cutter finds the ends of blocks, by a hash of the last 64 bytes (the gear hash of
// FastCDC, which doesn't look at the bytes before the smallest size either).
type cutter struct {
	gear   *[256]uint64
	hash   uint64
	length int // of the block so far
}

func newCutter() cutter {
	var gear [256]uint64
	for i := range gear { // splitmix64
		z := uint64(i+1) * 0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		gear[i] = z ^ z>>31
	}
	return cutter{gear: &gear}
}

// next returns how many bytes of p belong to the block, and whether it ends there.
func (c *cutter) next(p []byte) (n int, cut bool) {
	if skip := smallest - c.length; skip > 0 {
		if len(p) <= skip {
			c.length += len(p)
			return len(p), false
		}
		n = skip
	}
	hash, end := c.hash, min(len(p), largest-c.length)
	for ; n < end; n++ {
		hash = hash<<1 + c.gear[p[n]]
		if hash>>(64-cutBits) == 0 {
			c.hash, c.length = 0, 0
			return n + 1, true
		}
	}
	if c.length += n; c.length == largest {
		c.hash, c.length = 0, 0
		return n, true
	}
	c.hash = hash
	return n, false
}
