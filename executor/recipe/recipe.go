// Package recipe names results by what they are made of.
//
// A [Recipe] lists the inputs of a step once. Both the key of the result and the
// explanation why a result isn't known come from that list, so that they can't differ.
// A [Key] names what needs no explanation.
//
// Keys say nothing of the machine that they are computed on: results are exchanged between
// machines under their keys.
package recipe

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strconv"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/opencontainers/go-digest"
)

// version changes whenever the meaning of a key does. Every key also holds the version
// of the way files are hashed, so that results of another version aren't found.
const version = "bob.key.v4 " + filecopy.DigestVersion

// Key returns the key of values of one kind. Kinds never share a key. Each value is
// framed by its length, so that different sequences of values have different keys.
func Key(kind string, values ...string) digest.Digest { return Lasting(version, kind, values...) }

// Lasting is [Key] for values that stay good when version changes. It has a version of
// its own.
func Lasting(version, kind string, values ...string) digest.Digest {
	h := begin(version, kind)
	for _, v := range values {
		frame(h, v)
	}
	return sum(h)
}

func begin(version, kind string) hash.Hash {
	h := sha256.New()
	frame(h, version)
	frame(h, kind)
	return h
}

func frame(h hash.Hash, s string) {
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
	_, _ = h.Write([]byte(s))
}

func sum(h hash.Hash) digest.Digest { return digest.NewDigest(digest.SHA256, h) }

// Bool returns v as a value of a key.
func Bool(v bool) string { return strconv.FormatBool(v) }

// Number returns n as a value of a key.
func Number[N int | int64 | uint32 | uint64](n N) string {
	if n < 0 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(uint64(n), 10)
}

// An Input is one input of a result, with its name in explanations. It holds the digest
// of the value, since the value may be confidential.
type Input struct {
	Name  string `json:"name"`
	Value string `json:"value"` // "" where that isn't known
}

// SourcePrefix begins the names of inputs that [Recipe.Source] adds.
const SourcePrefix = "content of "

// A Recipe lists the inputs of a step. It is used by one goroutine at a time.
type Recipe struct {
	inputs []Input
	hash   hash.Hash
}

// New returns a recipe of one kind without inputs. Kinds never share a key.
func New(kind string) *Recipe { return &Recipe{hash: begin(version, kind)} }

// Add adds an input that explanations call name. The key holds the name, too.
func (r *Recipe) Add(name string, values ...string) {
	r.add(name, Key("input "+name, values...))
}

// Source adds the content of a source of the step. The key holds the content and not
// the name, so that the same content from another place has the same key.
func (r *Recipe) Source(name string, content digest.Digest) {
	r.add(SourcePrefix+name, content)
}

// Unread notes for explanations that the step has a source whose content was not read.
// The recipe has no key after that.
func (r *Recipe) Unread(name string) {
	r.inputs = append(r.inputs, Input{Name: SourcePrefix + name})
}

// Hidden adds values to the key that no explanation names.
func (r *Recipe) Hidden(values ...string) {
	frame(r.hash, Key("hidden", values...).String())
}

func (r *Recipe) add(name string, value digest.Digest) {
	frame(r.hash, value.String())
	r.inputs = append(r.inputs, Input{Name: name, Value: Short(value)})
}

// Key returns the key of everything added so far.
func (r *Recipe) Key() digest.Digest { return sum(r.hash) }

// Inputs returns the inputs added so far, in order.
func (r *Recipe) Inputs() []Input { return r.inputs }

// Short returns enough of d to identify it in an explanation.
func Short(d digest.Digest) string { return d.Encoded()[:16] }
