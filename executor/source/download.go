package source

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// downloadKind are records of downloaded files, by address.
const downloadKind = "download-2"

// A download is what the store remembers of a file that was fetched.
type download struct {
	fetch.Version

	Snapshot string // ID of the snapshot with the file
}

// Download returns the file f, the only one in its tree. A known file is requested
// again with its server's validator, or not at all if its checksum is given.
func (s *Sources) Download(ctx context.Context, f fetch.File) (*Fetched, error) {
	record := recipe.Key("download", f.URL, f.Name, f.Checksum.String())
	return s.fetches.Get(ctx, record, func(ctx context.Context) (_ *Fetched, err error) {
		v := s.Progress.Start("[internal] load " + fetch.Redact(f.URL))
		defer func() { v.Done(err) }()
		known, snap := s.downloaded(record)
		if known == nil || f.Checksum == "" {
			err = s.Limit(ctx, func(ctx context.Context) (err error) {
				known, snap, err = s.download(ctx, f, record, known, snap, v)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		key := recipe.Key("http", known.Digest.String(), f.Name, known.Time().UTC().String())
		return &Fetched{Key: key, RootFS: &RootFS{snap: snap}}, nil
	})
}

// downloaded returns the download known under record, nil if the store has no record.
func (s *Sources) downloaded(record digest.Digest) (*fetch.Version, *snapshot.Snapshot) {
	data, err := s.Store.Record(downloadKind, record)
	if err != nil {
		return nil, nil
	}
	var d download
	if json.Unmarshal(data, &d) != nil {
		return nil, nil
	}
	snap, err := s.Store.Snapshot(d.Snapshot)
	if err != nil {
		return nil, nil
	}
	return &d.Version, snap
}

// download fetches f, unless what is known is still current.
func (s *Sources) download(ctx context.Context, f fetch.File, record digest.Digest, known *fetch.Version, snap *snapshot.Snapshot, v *event.Vertex) (*fetch.Version, *snapshot.Snapshot, error) {
	var active *snapshot.Active
	var t *event.Transfer
	version, err := s.Fetch.Download(ctx, f, known, func() (string, error) {
		if active == nil {
			var err error
			if active, err = s.Store.Prepare(ctx, nil); err != nil {
				return "", err
			}
		}
		return active.Root(), nil
	}, func(got, of int64) {
		if t == nil {
			t = v.Transfer(f.Name, max(0, of))
		}
		t.Reached(got)
	})
	if err != nil {
		if active != nil {
			err = errors.Join(err, active.Discard())
		}
		return nil, nil, err
	}
	if version == known {
		return known, snap, nil
	}
	if snap, err = active.Commit(); err != nil {
		return nil, nil, err
	}
	data, err := json.Marshal(download{*version, snap.ID()})
	if err != nil {
		return nil, nil, err
	}
	return version, snap, s.Store.PutRecord(downloadKind, record, data)
}

// Time returns the Last-Modified of the file f, or else the time of the newest file in
// the archive that it is. It is zero if neither is known.
func (s *Sources) Time(ctx context.Context, f fetch.File) (time.Time, error) {
	got, err := s.Download(ctx, f)
	if err != nil {
		return time.Time{}, err
	}
	tree, err := s.View(ctx, got.RootFS)
	if err != nil {
		return time.Time{}, err
	}
	file, err := os.OpenInRoot(tree.Root, f.Name)
	if err != nil {
		return time.Time{}, err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return time.Time{}, err
	}
	if fi.ModTime().Unix() != 0 { // else the server said nothing
		return fi.ModTime(), nil
	}
	return snapshot.ArchiveTime(file), nil
}
