package harness

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Peak is the largest memory that was seen resident at once, in bytes.
type Peak struct {
	Tree int64 // all processes of the run, what RUN started included
	Self int64 // of the program alone, its re-executed children included
}

// WatchMemory samples the resident memory of a run every 20 ms until it ends;
// the peak may be read once the channel is closed. Pages that processes share
// count for each of them.
func (r *Running) WatchMemory() (peak *Peak, done <-chan struct{}) {
	peak = &Peak{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		page := int64(os.Getpagesize())
		for {
			dirs := r.dirs()
			if len(dirs) == 0 {
				return
			}
			var tree, self int64
			for _, dir := range dirs {
				resident := statm(dir) * page
				tree += resident
				if exe, err := os.Readlink(dir + "/exe"); err == nil && filepath.Base(exe) == filepath.Base(r.cmd.Path) {
					self += resident
				}
			}
			peak.Tree, peak.Self = max(peak.Tree, tree), max(peak.Self, self)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return peak, ended
}

// statm returns the resident pages of a process; 0 if it has ended.
func statm(dir string) int64 {
	body, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(body))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages
}
