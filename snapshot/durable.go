package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/snapshot/internal/locks"
	"golang.org/x/sys/unix"
)

// Nothing in the store waits for the disk. What must be whole to be right says
// instead when it was written: in which boot of the machine, and at which moment of
// that boot, once all of it was there. [Sync] remembers up to which moment of a boot
// all is on the disk. Whatever a boot wrote after that is as good as absent once
// another boot is running: a power failure may have left any part of it.

// A stamp is the moment of a boot at which something was whole.
type stamp struct {
	Boot string `json:"boot,omitempty"` // "" if boots can't be told apart
	At   int64  `json:"at,omitempty"`   // nanoseconds since that boot
}

// thisBoot names the boot and the clock that stamps are of.
func thisBoot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	clock, _ := os.Readlink("/proc/self/ns/time") // a time namespace has a clock of its own
	sum := sha256.Sum256(append(bytes.TrimSpace(id), clock...))
	return hex.EncodeToString(sum[:16])
}

// stampNow is the stamp of what is whole now. The clock stands still for nobody who
// sets the time.
func stampNow(boot string) stamp {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return stamp{Boot: boot, At: math.MaxInt64} // never known to be on the disk
	}
	return stamp{Boot: boot, At: ts.Nano()}
}

// holds reports whether what has the stamp st must still be as it was written.
func (s *Store) holds(st stamp) bool {
	if st.Boot == s.boot {
		return true
	}
	synced, ok := s.synced.Load(st.Boot)
	if !ok {
		synced = readSynced(s.syncedPath(st.Boot))
		s.synced.Store(st.Boot, synced)
	}
	return st.At <= synced.(int64) //nolint:forcetypeassert // nothing else is stored
}

func (s *Store) syncedPath(boot string) string { return filepath.Join(s.path(syncedName), boot) }

// syncedName is the directory of what Sync remembers: a file for each boot.
const syncedName = "synced"

// readSynced returns up to which moment of its boot all is on the disk, as path
// says; nothing is if that can't be read.
func readSynced(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	st, _, err := unseal(b)
	if err != nil || st.Boot != filepath.Base(path) {
		return -1
	}
	return st.At
}

// Sync waits until all that the store in dir held when it was called is on the disk,
// with all else on that file system, and remembers that. Processes may use the store
// meanwhile. Of several calls at the same time one does the work for those that wait.
func Sync(ctx context.Context, dir string) error {
	if err := syncStore(ctx, dir); err != nil {
		return fmt.Errorf("sync store %s: %w", dir, err)
	}
	return nil
}

func syncStore(ctx context.Context, dir string) error {
	boot := thisBoot()
	want := stampNow(boot)
	marks := filepath.Join(dir, syncedName)
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(marks, 0o700); err != nil {
		return err
	}
	unlock, err := locks.Wait(ctx, filepath.Join(marks, locks.GuardName), nil)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(marks, boot)
	if boot != "" && readSynced(path) >= want.At {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	now := stampNow(boot)
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	if boot == "" || now.At == math.MaxInt64 {
		return nil
	}
	return writeSynced(path, seal(now, nil))
}

// writeSynced writes the file path and waits until it is on the disk.
func writeSynced(path string, data []byte) (err error) {
	f, err := os.OpenFile(filepath.Join(filepath.Dir(path), ".new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sealMark begins what seal makes.
const sealMark = "bob1"

// seal puts before value a line with its stamp and a sum, by which unseal knows it.
func seal(st stamp, value []byte) []byte {
	head := fmt.Sprintf("%s %q %d", sealMark, st.Boot, st.At)
	return append(fmt.Appendf(nil, "%s %x\n", head, sealSum(head, value)), value...)
}

func sealSum(head string, value []byte) []byte {
	h := sha256.New()
	h.Write([]byte(head))
	h.Write(value)
	return h.Sum(nil)
}

var errSeal = errors.New("damaged")

// unseal returns what was given to seal. Anything else is errSeal.
func unseal(data []byte) (stamp, []byte, error) {
	line, value, _ := bytes.Cut(data, []byte{'\n'})
	at := bytes.LastIndexByte(line, ' ')
	if at < 0 {
		return stamp{}, nil, errSeal
	}
	var st stamp
	head := string(line[:at])
	if _, err := fmt.Sscanf(head, sealMark+" %q %d", &st.Boot, &st.At); err != nil {
		return stamp{}, nil, errSeal
	}
	if string(line[at+1:]) != hex.EncodeToString(sealSum(head, value)) {
		return stamp{}, nil, errSeal
	}
	return st, value, nil
}
