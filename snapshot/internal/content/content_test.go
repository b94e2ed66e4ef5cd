package content_test

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "crypto/sha512" // for a digest
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// retried is the error of a reader that wants to be opened again.
type retried struct{}

func (retried) Error() string { return "opened too early" }
func (retried) Again() bool   { return true }

func TestStream(t *testing.T) {
	t.Parallel()
	const text = "the tar of a layer, and what follows its end marker"
	for name, c := range map[string]struct {
		blob  []byte
		end   error // of the reader, nil for io.EOF
		first int   // how many bytes are taken
		size  int64 // bound, 0 for no bound
		want  string
	}{
		"plain":            {blob: []byte(text), first: 7},
		"compressed":       {blob: gzipped(t, text), first: 7},
		"another":          {blob: gzipped(t, text+"."), first: 7, want: "the image says DiffID"},
		"bytes follow":     {blob: append(gzipped(t, text), "more"...), first: 7, want: "read to the end"},
		"cut":              {blob: gzipped(t, text)[:20], first: 7, want: "unexpected EOF"},
		"reader says why":  {blob: gzipped(t, text)[:20], end: retried{}, first: 7, want: "opened too early"},
		"reader at end":    {blob: gzipped(t, text), end: retried{}, first: 7, want: "opened too early"},
		"larger than said": {blob: gzipped(t, strings.Repeat("x", 1<<20)), first: 7, size: 1000, want: "1000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := content.Layer{DiffID: digest.FromString(text), Open: func(context.Context) (io.ReadCloser, error) {
				r := io.Reader(bytes.NewReader(c.blob))
				if c.end != nil {
					r = io.MultiReader(r, failing{c.end})
				}
				return io.NopCloser(r), nil
			}}
			var got []byte
			err := l.Stream(t.Context(), bounded.NewBudget(c.size), func(_ context.Context, r io.Reader) error {
				got = make([]byte, c.first)
				_, err := io.ReadFull(r, got)
				return err
			})
			if c.want == "" && (err != nil || string(got) != text[:c.first]) {
				t.Errorf("got %q, %v", got, err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if again := c.end != nil; content.Again(err) != again {
				t.Errorf("%v wants to be opened again: %t", err, !again)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestTakeFails: the error of what takes the bytes is returned as it is.
func TestTakeFails(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	l := content.Layer{DiffID: digest.FromString("text"), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("text")), nil
	}}
	if err := l.Stream(t.Context(), bounded.NewBudget(0), func(context.Context, io.Reader) error { return full }); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := digest.FromString("x")
	for _, c := range []struct {
		l    content.Layer
		want string
	}{
		{content.Layer{DiffID: good}, ""},
		{content.Layer{}, "DiffID"},
		{content.Layer{DiffID: "sha256:short"}, "DiffID"},
		{content.Layer{DiffID: digest.SHA512.FromString("x")}, "unsupported"},
		{content.Layer{DiffID: good, Blob: ocispec.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"}}, "encrypted"},
	} {
		err := c.l.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q", c.l, err, c.want)
		}
	}
}

// TestStackIDs: layers that lie on nothing have their chain IDs (OCI image specification
// 1.1, config.md).
func TestStackIDs(t *testing.T) {
	t.Parallel()
	one, two := digest.FromString("1"), digest.FromString("2")
	chain := digest.FromString(one.String() + " " + two.String())
	ids := content.StackIDs("", []content.Layer{{DiffID: one}, {DiffID: two}})
	if len(ids) != 2 || ids[0] != one.Encoded() || ids[1] != chain.Encoded() {
		t.Errorf("got %q", ids)
	}
	if other := content.StackID("0123456789abcdef0123456789abcdef", one); other == one.Encoded() || other == ids[1] {
		t.Errorf("over another snapshot the ID is %s, too", other)
	}
}
