package output

import (
	"reflect"
	"testing"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]spec{
		"-":                                {kind: kind{name: "tar"}, dest: "-"},
		"/dir":                             {kind: kind{name: "local"}, dest: "/dir"},
		"type=tar,dest=/x.tar":             {kind: kind{name: "tar"}, dest: "/x.tar"},
		"type=docker":                      {kind: kind{name: "docker"}, dest: "-"},
		"type=oci,tar=false,dest=/d":       {kind: kind{name: "oci"}, dest: "/d", dir: true},
		"type=registry,name=host/x:1":      {kind: kind{name: "registry"}, push: true, names: []string{"host/x:1"}},
		"type=image,name=host/x,push=true": {kind: kind{name: "image"}, push: true, names: []string{"host/x"}},
		`type=image,"name=h/x,h/y:1"`:      {kind: kind{name: "image"}, names: []string{"h/x", "h/y:1"}},
		"type=image,push=true,push-by-digest=true,name-canonical=true,unpack=false": {
			kind: kind{name: "image"}, push: true, byDigest: true,
		},
		"type=oci,dest=/x,compression=zstd,force-compression,annotation-index[linux/arm64].a.b=c": {
			kind: kind{name: "oci"}, dest: "/x",
			image: []cli.Field{{Key: "compression", Value: "zstd", HasValue: true}, {Key: "force-compression"}, {Key: "annotation-index[linux/arm64].a.b", Value: "c", HasValue: true}},
		},
		`type=local,"dest=/a,b"`: {kind: kind{name: "local"}, dest: "/a,b"},
	} {
		var err error
		if want.kind, err = kindOf(want.name); err != nil {
			t.Fatal(err)
		}
		want.text = text
		got := spec{text: text}
		if err := got.parse(); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}
