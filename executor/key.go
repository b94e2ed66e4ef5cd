package executor

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/opencontainers/go-digest"
)

// A keyHash computes a cache key. Every value is framed by its length, so that
// no two sequences of values have the same key by running into one another.
type keyHash struct{ h hash.Hash }

// newKey starts the key of one kind of thing; kinds never share a key. The
// version in it changes whenever the meaning of a key does.
func newKey(kind string) keyHash {
	k := keyHash{sha256.New()}
	return k.str("bob.key.v2").str(kind)
}

func (k keyHash) str(s string) keyHash {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(s)))
	k.h.Write(n[:])
	k.h.Write([]byte(s))
	return k
}

func (k keyHash) list(ss []string) keyHash {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(ss)))
	k.h.Write(n[:])
	for _, s := range ss {
		k.str(s)
	}
	return k
}

func (k keyHash) bool(v bool) keyHash {
	if v {
		return k.str("true")
	}
	return k.str("false")
}

func (k keyHash) sum() digest.Digest { return digest.NewDigest(digest.SHA256, k.h) }
