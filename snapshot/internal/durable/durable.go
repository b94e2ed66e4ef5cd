// Package durable tells what of a store has survived a power failure.
//
// Nothing in a store waits for the disk. What must be whole to be right says instead
// when it was written: in which boot of the machine, and at which moment of that boot,
// once all of it was there. [Sync] remembers up to which moment of a boot all is on the
// disk. What a boot wrote after that counts as absent once another boot is running: a
// power failure may have left any part of it.
package durable

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/locks"
	"golang.org/x/sys/unix"
)

// A Stamp is the moment of a boot at which something was whole.
type Stamp struct {
	Boot string `json:"boot,omitempty"` // "" if boots can't be told apart
	At   int64  `json:"at,omitempty"`   // nanoseconds since that boot
}

// Boots knows how much of what each boot of the machine wrote to a store is on the disk.
// Its methods may be called concurrently.
type Boots struct {
	dir    string   // of the files that Sync writes, one for each boot
	boot   string   // the running one
	synced sync.Map // by the name of another boot, the moment up to which all is on the disk
}

// Of returns what is known of the store in dir.
func Of(dir string) *Boots {
	return &Boots{dir: filepath.Join(dir, syncedName), boot: thisBoot()}
}

// Running names the running boot of the machine, "" if boots can't be told apart here.
func (b *Boots) Running() string { return b.boot }

// Now is the stamp of what is whole now.
func (b *Boots) Now() Stamp { return stampNow(b.boot) }

// Holds reports whether what has the stamp st must still be as it was written.
func (b *Boots) Holds(st Stamp) bool {
	if st.Boot == b.boot {
		return true
	}
	synced, ok := b.synced.Load(st.Boot)
	if !ok {
		synced = readSynced(filepath.Join(b.dir, st.Boot))
		b.synced.Store(st.Boot, synced)
	}
	return st.At <= synced.(int64) //nolint:forcetypeassert // nothing else is stored
}

// Seal puts before value a line with the stamp of now and a sum, by which Unseal knows it.
func (b *Boots) Seal(value []byte) []byte { return seal(b.Now(), value) }

// Unseal returns the value that was given to Seal. It reports false if data is anything
// else, or if the value may have been lost in a power failure.
func (b *Boots) Unseal(data []byte) (value []byte, ok bool) {
	st, value, err := unseal(data)
	return value, err == nil && b.Holds(st)
}

// remembered is the number of boots of which Forget leaves what Sync noted. What older
// ones wrote counts as lost.
const remembered = 100

// Forget removes what Sync noted of the oldest boots.
func (b *Boots) Forget() error {
	entries, err := os.ReadDir(b.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	type mark struct {
		path string
		at   time.Time
	}
	var marks []mark
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err != nil {
			return err
		}
		marks = append(marks, mark{filepath.Join(b.dir, e.Name()), fi.ModTime()})
	}
	slices.SortFunc(marks, func(a, b mark) int { return b.at.Compare(a.at) })
	for _, m := range marks[min(len(marks), remembered):] {
		if err := os.Remove(m.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// thisBoot names the running boot together with the clock that stamps are taken from.
func thisBoot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	clock, _ := os.Readlink("/proc/self/ns/time") // a time namespace has a clock of its own
	sum := sha256.Sum256(append(bytes.TrimSpace(id), clock...))
	return hex.EncodeToString(sum[:16])
}

// stampNow is the stamp of now in the boot. Setting the time doesn't move its clock.
func stampNow(boot string) Stamp {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return Stamp{Boot: boot, At: math.MaxInt64} // never known to be on the disk
	}
	return Stamp{Boot: boot, At: ts.Nano()}
}

// syncedName is the directory of what Sync remembers: a file for each boot.
const syncedName = "synced"

// readSynced returns the moment of a boot up to which all is on the disk, as the file path
// has it, and -1, before any moment, if the file can't be read.
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

// Sync brings the store in dir to the disk, with all else on that file system, and
// remembers that. Processes may use the store meanwhile. Of several calls at the same
// time one does the work for those that wait. Ending ctx ends that wait only.
func Sync(ctx context.Context, dir string) error {
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

func seal(st Stamp, value []byte) []byte {
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

// unseal returns what was given to seal. The error for any other data is errSeal.
func unseal(data []byte) (Stamp, []byte, error) {
	line, value, _ := bytes.Cut(data, []byte{'\n'})
	at := bytes.LastIndexByte(line, ' ')
	if at < 0 {
		return Stamp{}, nil, errSeal
	}
	var st Stamp
	head := string(line[:at])
	if _, err := fmt.Sscanf(head, sealMark+" %q %d", &st.Boot, &st.At); err != nil {
		return Stamp{}, nil, errSeal
	}
	if string(line[at+1:]) != hex.EncodeToString(sealSum(head, value)) {
		return Stamp{}, nil, errSeal
	}
	return st, value, nil
}
