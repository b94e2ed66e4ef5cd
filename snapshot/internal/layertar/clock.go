package layertar

import (
	"time"

	"golang.org/x/sys/unix"
)

// A Clock turns the modification times on the disk into those in a tar.
type Clock func(unix.Timespec) unix.Timespec

// asIs is the clock that leaves times as they are on the disk.
func asIs(t unix.Timespec) unix.Timespec { return t }

// NoLaterThan is the clock that stops at latest, if that isn't nil.
func NoLaterThan(latest *time.Time) (Clock, error) {
	if latest == nil {
		return asIs, nil
	}
	limit, err := unix.TimeToTimespec(*latest)
	return func(t unix.Timespec) unix.Timespec {
		if t.Sec > limit.Sec || t.Sec == limit.Sec && t.Nsec > limit.Nsec {
			return limit
		}
		return t
	}, err
}

// Always is the clock that shows at and nothing else, if that isn't nil.
func Always(at *time.Time) (Clock, error) {
	if at == nil {
		return asIs, nil
	}
	stopped, err := unix.TimeToTimespec(*at)
	return func(unix.Timespec) unix.Timespec { return stopped }, err
}
