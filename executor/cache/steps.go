package cache

import (
	"encoding/json"
	"time"

	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// Kinds of records in the store: the results of steps by their keys, and the chain IDs of
// snapshots that aren't named by them.
const (
	stepKind  = "step-2"
	chainKind = "chain-2"
)

// A Result is the result of a step.
type Result struct {
	Key     digest.Digest
	Created time.Time // when the step ended
	Layer   *image.Layer
	RootFS  *source.RootFS
}

// A Step is a step of this build, for the caches that it goes into.
type Step struct {
	Result

	Below   []*image.Layer // below the step, base first
	InImage bool           // its layer is part of the result
}

// A stepRecord is what the store remembers of a step under its key.
type stepRecord struct {
	Snapshot string    // ID of the snapshot
	Created  time.Time // when the step ended, for the history
}

// Remember records the snapshot id, which was created at that time, as the result of
// the step with this key.
func Remember(store *snapshot.Store, key digest.Digest, id string, created time.Time) error {
	data, err := json.Marshal(stepRecord{Snapshot: id, Created: created})
	if err != nil {
		return err
	}
	return store.PutRecord(stepKind, key, data)
}

// Recall returns the result that the store knows of the step with this key, and when it
// was made; nil if there is none, or it isn't whole any more.
func Recall(store *snapshot.Store, key digest.Digest) (*snapshot.Snapshot, time.Time) {
	data, err := store.Record(stepKind, key)
	if err != nil {
		return nil, time.Time{}
	}
	var rec stepRecord
	if json.Unmarshal(data, &rec) != nil {
		return nil, time.Time{}
	}
	snap, err := store.Snapshot(rec.Snapshot)
	if err != nil {
		return nil, time.Time{}
	}
	return snap, rec.Created
}

func chainKey(id string) digest.Digest { return recipe.Key("chain", id) }

// recallChain returns the chain ID of the layers that the snapshot id is made of, "" for
// the empty one; ok is false where it isn't known.
func recallChain(store *snapshot.Store, id string) (chain digest.Digest, ok bool) {
	if id == "" {
		return "", true
	}
	if data, err := store.Record(chainKind, chainKey(id)); err == nil {
		chain, err = digest.Parse(string(data))
		return chain, err == nil
	}
	chain = digest.NewDigestFromEncoded(digest.SHA256, id)
	return chain, chain.Validate() == nil
}

// rememberChain remembers that the snapshot id is made of the layers of chain.
func rememberChain(store *snapshot.Store, id string, chain digest.Digest) error {
	if id == chain.Encoded() {
		return nil
	}
	return store.PutRecord(chainKind, chainKey(id), []byte(chain))
}

// chainOver returns the chain ID of a layer over those of chain, "" for none.
func chainOver(chain, diffID digest.Digest) digest.Digest {
	if chain == "" {
		return diffID
	}
	return identity.ChainID([]digest.Digest{chain, diffID})
}
