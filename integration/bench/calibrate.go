package main

import (
	"context"
	"crypto/sha256"
	"os/exec"
	"time"
)

// A calibration is how long fixed work takes before a run: what other work on the
// machine slows down, it slows down as well.
type calibration struct {
	Fork time.Duration // 200 starts of /bin/true, one after the other
	Hash time.Duration // SHA-256 of 64 MiB
}

func calibrate(ctx context.Context) (calibration, error) {
	var c calibration
	begin := time.Now()
	for range 200 {
		if err := exec.CommandContext(ctx, "/bin/true").Run(); err != nil {
			return c, err
		}
	}
	c.Fork = time.Since(begin)
	begin = time.Now()
	hash, block := sha256.New(), make([]byte, 1<<20)
	for range 64 {
		hash.Write(block)
	}
	hash.Sum(nil)
	c.Hash = time.Since(begin)
	return c, nil
}
