package executor

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strconv"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A keyHash computes a cache key. Every value is framed by its length, so that
// no two sequences of values have the same key by running into one another.
type keyHash struct{ h hash.Hash }

// keyVersion changes whenever the meaning of a key does.
const keyVersion = "bob.key.v3"

// newKey starts the key of one kind of thing; kinds never share a key. It holds how
// files are hashed too: what an earlier way has led to is found by no later one, so
// that no key depends on what this machine remembers.
func newKey(kind string) keyHash { return keyUnder(keyVersion+" "+filecopy.DigestVersion, kind) }

// keyUnder is newKey for what outlives other versions.
func keyUnder(version, kind string) keyHash {
	k := keyHash{sha256.New()}
	return k.str(version).str(kind)
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

func (k keyHash) number(n int64) keyHash { return k.str(strconv.FormatInt(n, 10)) }

// platform adds all that tells p from others.
func (k keyHash) platform(p ocispec.Platform) keyHash {
	return k.str(p.OS).str(p.Architecture).str(p.Variant).str(p.OSVersion).list(p.OSFeatures)
}

func (k keyHash) owner(o dockerfile.MountOwner) keyHash {
	return k.number(int64(o.UID)).number(int64(o.GID)).number(int64(o.Mode))
}

func (k keyHash) ulimits(all []sandbox.Ulimit) keyHash {
	k = k.number(int64(len(all)))
	for _, u := range all {
		k = k.str(u.Name).str(strconv.FormatUint(u.Soft, 10)).str(strconv.FormatUint(u.Hard, 10))
	}
	return k
}

func (k keyHash) sum() digest.Digest { return digest.NewDigest(digest.SHA256, k.h) }
