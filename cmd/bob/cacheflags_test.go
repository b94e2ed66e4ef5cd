package main

import (
	"reflect"
	"testing"

	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/snapshot"
)

func TestSharedCacheFlags(t *testing.T) {
	t.Parallel()
	o := parsedOptions(t, "--cache-from h/c --cache-from type=registry,ref=h/d:1 --cache-from type=local,src=x,tag=t"+
		" --cache-to type=registry,ref=h/c,mode=max,compression=zstd,force-compression=true,image-manifest=true,oci-mediatypes=true,ignore-error=true"+
		" --cache-to h/d --cache-to type=local,dest=y,mode=min --cache-to type=inline")
	from := []cache.Source{{Ref: "h/c"}, {Ref: "h/d:1"}, {Layout: &archive.LayoutImage{Dir: "x", Tag: "t"}}}
	to := []cache.Target{
		{Ref: "h/c", Max: true, Compression: &snapshot.Compression{Method: snapshot.Zstd}, IgnoreError: true},
		{Ref: "h/d"},
		{Dir: "y", Tag: "latest"},
		{Inline: true},
	}
	if !reflect.DeepEqual(o.build.CacheFrom, from) {
		t.Errorf("from %+v, want %+v", o.build.CacheFrom, from)
	}
	if !reflect.DeepEqual(o.build.CacheTo, to) {
		t.Errorf("to %+v, want %+v", o.build.CacheTo, to)
	}
}
