package source

import (
	"context"
	"errors"

	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// repositoryKind are records of the IDs of snapshots, by what was checked out.
const repositoryKind = "repository-2"

// Repository returns r's tree. One request resolves its reference; files are fetched
// when they are needed.
func (s *Sources) Repository(ctx context.Context, r fetch.Repository) (*Fetched, error) {
	key := recipe.Key("repository", r.Remote, r.Ref, r.Checksum, r.Subdir,
		recipe.Bool(r.KeepGitDir), recipe.Bool(r.SkipSubmodules), recipe.Bool(r.CommitTime), recipe.Bool(r.FetchByCommit))
	return s.fetches.Get(ctx, key, func(ctx context.Context) (f *Fetched, err error) {
		v := s.Progress.Start("[internal] resolve git source " + fetch.Redact(r.Remote))
		defer func() { v.Done(err) }()
		var at *fetch.Commit
		err = s.Limit(ctx, func(ctx context.Context) (err error) {
			at, err = s.Fetch.Resolve(ctx, r)
			return err
		})
		if err != nil {
			return nil, err
		}
		key := recipe.Key("git", r.Key(at))
		// The same commit of another remote is the same tree, but a build without the
		// secret must not find what a secret gave access to.
		record := recipe.Key("git tree", key.String(), r.Remote)
		files := Later("", func(ctx context.Context) (snap *snapshot.Snapshot, err error) {
			err = s.Limit(ctx, func(ctx context.Context) (err error) {
				snap, err = s.checkout(ctx, r, at, record)
				return err
			})
			return snap, err
		})
		return &Fetched{Key: key, record: record, RootFS: files}, nil
	})
}

// checkout makes the snapshot of a tree, unless the store has it.
func (s *Sources) checkout(ctx context.Context, r fetch.Repository, at *fetch.Commit, record digest.Digest) (snap *snapshot.Snapshot, err error) {
	if id, err := s.Store.Record(repositoryKind, record); err == nil {
		if snap, err := s.Store.Snapshot(string(id)); err == nil {
			return snap, nil
		}
	}
	v := s.Progress.Start("load git source " + fetch.Redact(r.Remote))
	defer func() { v.Done(err) }()
	active, err := s.Store.Prepare(ctx, nil)
	if err != nil {
		return nil, err
	}
	if err := s.Fetch.Checkout(ctx, r, at, active.Root()); err != nil {
		return nil, errors.Join(err, active.Discard())
	}
	if snap, err = active.Commit(); err != nil {
		return nil, err
	}
	return snap, s.Store.PutRecord(repositoryKind, record, []byte(snap.ID()))
}

// Has reports whether the store has the files of f, and whether it has ever had them.
func (s *Sources) Has(f *Fetched) (now, ever bool) {
	if f.record == "" {
		return true, true
	}
	id, err := s.Store.Record(repositoryKind, f.record)
	if err != nil {
		return false, false
	}
	_, err = s.Store.Snapshot(string(id))
	return err == nil, true
}
