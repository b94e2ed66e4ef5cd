package executor

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// Kinds of records about what was fetched.
const (
	downloadKind   = "download-2"   // by address: a downloadRecord
	repositoryKind = "repository-2" // by key: the ID of a snapshot
)

// A fetched is a file or a tree that came from elsewhere. It is a snapshot of
// its own, which later builds find again.
type fetched struct {
	key    digest.Digest // of the files
	rootfs *rootfs
	record digest.Digest // that the store has of a repository's tree; "" for a file, which is here
}

func (f *fetched) open(b *build) func(context.Context) (*source, error) {
	return func(ctx context.Context) (*source, error) { return b.view(ctx, f.rootfs) }
}

// repository returns r's tree. That what its reference stands for
// is known costs one request; files are fetched when they are needed.
func (b *build) repository(ctx context.Context, r *dockerfile.Repository) (*fetched, error) {
	want := fetch.Repository(*r)
	k := newKey("repository").str(r.Remote).str(r.Ref).str(r.Checksum).str(r.Subdir).
		bool(r.KeepGitDir).bool(r.SkipSubmodules).bool(r.CommitTime).bool(r.FetchByCommit).sum()
	return b.fetches.Get(ctx, k, func(ctx context.Context) (f *fetched, err error) {
		v := b.progress.Start("[internal] resolve git source " + fetch.Redact(r.Remote))
		defer func() { v.Done(err) }()
		var at *fetch.Commit
		err = b.bounded(ctx, func(ctx context.Context) (err error) {
			at, err = b.Fetch.Resolve(ctx, want)
			return err
		})
		if err != nil {
			return nil, err
		}
		key := newKey("git").str(want.Key(at)).sum()
		// The same commit from elsewhere is the same tree, but what a secret let
		// one read of one remote is not for those without it.
		record := newKey("git tree").str(key.String()).str(r.Remote).sum()
		return &fetched{key: key, record: record, rootfs: &rootfs{make: func(ctx context.Context) (snap *snapshot.Snapshot, err error) {
			err = b.bounded(ctx, func(ctx context.Context) (err error) {
				snap, err = b.checkout(ctx, want, at, record)
				return err
			})
			return snap, err
		}}}, nil
	})
}

// neededAnyway reports whether a step that takes files of f reads them whatever else is
// known, or they are here. The store knows of no result made of a tree that it never had.
func (b *build) neededAnyway(f *fetched) bool {
	if f.record == "" || b.opts.NoCache {
		return true
	}
	id, err := b.Store.Record(repositoryKind, f.record)
	if err != nil {
		return len(b.opts.CacheFrom) == 0
	}
	_, err = b.Store.Snapshot(string(id))
	return err == nil
}

// checkout makes the snapshot of a tree, unless the store has it.
func (b *build) checkout(ctx context.Context, r fetch.Repository, at *fetch.Commit, record digest.Digest) (snap *snapshot.Snapshot, err error) {
	if id, err := b.Store.Record(repositoryKind, record); err == nil {
		if snap, err := b.Store.Snapshot(string(id)); err == nil {
			return snap, nil
		}
	}
	v := b.progress.Start("load git source " + fetch.Redact(r.Remote))
	defer func() { v.Done(err) }()
	active, err := b.Store.Prepare(ctx, nil)
	if err != nil {
		return nil, err
	}
	if err := b.Fetch.Checkout(ctx, r, at, active.Root()); err != nil {
		return nil, errors.Join(err, active.Discard())
	}
	if snap, err = active.Commit(); err != nil {
		return nil, err
	}
	return snap, b.Store.PutRecord(repositoryKind, record, []byte(snap.ID()))
}

// A downloadRecord is what the store remembers of a file that was fetched.
type downloadRecord struct {
	fetch.Version

	Snapshot string // ID of the snapshot with the file
}

// download returns the file d. One that is known is asked for
// again with what its server said of it, or not at all if its checksum is given.
func (b *build) download(ctx context.Context, d *dockerfile.Download) (*fetched, error) {
	record := newKey("download").str(d.URL).str(d.Name).str(d.Checksum.String()).sum()
	return b.fetches.Get(ctx, record, func(ctx context.Context) (f *fetched, err error) {
		v := b.progress.Start("[internal] load " + fetch.Redact(d.URL))
		defer func() { v.Done(err) }()
		known, snap := b.downloaded(record)
		if known == nil || d.Checksum == "" {
			err = b.bounded(ctx, func(ctx context.Context) (err error) {
				known, snap, err = b.get(ctx, d, record, known, snap, v)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		key := newKey("http").str(known.Digest.String()).str(d.Name).str(known.Time().UTC().String()).sum()
		return &fetched{key: key, rootfs: &rootfs{snap: snap}}, nil
	})
}

// downloaded returns what is known under record, nil if that is nothing.
func (b *build) downloaded(record digest.Digest) (*fetch.Version, *snapshot.Snapshot) {
	data, err := b.Store.Record(downloadKind, record)
	if err != nil {
		return nil, nil
	}
	rec := &downloadRecord{}
	if json.Unmarshal(data, rec) != nil {
		return nil, nil
	}
	snap, err := b.Store.Snapshot(rec.Snapshot)
	if err != nil {
		return nil, nil
	}
	return &rec.Version, snap
}

// get fetches d, unless what is known is still current.
func (b *build) get(ctx context.Context, d *dockerfile.Download, record digest.Digest, known *fetch.Version, snap *snapshot.Snapshot, v *event.Vertex) (*fetch.Version, *snapshot.Snapshot, error) {
	var active *snapshot.Active
	var t *event.Transfer
	file := fetch.File{URL: d.URL, Name: d.Name, Checksum: d.Checksum}
	version, err := b.Fetch.Download(ctx, file, known, func() (string, error) {
		if active == nil {
			var err error
			if active, err = b.Store.Prepare(ctx, nil); err != nil {
				return "", err
			}
		}
		return active.Root(), nil
	}, func(got, of int64) {
		if t == nil {
			t = v.Transfer(d.Name, max(0, of))
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
	return version, snap, b.remember(downloadKind, record, downloadRecord{*version, snap.ID()})
}
