package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/bobbuild/bob/integration/harness"
)

// toolchain is Debian with a C compiler and much that doesn't compress: 450 MB of gzip in
// three layers.
const toolchain = `FROM $REGISTRY/debian
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN mkdir /opt/data && for i in $(seq 205); do head -c 1048576 /dev/urandom > /opt/data/$i; done
`

// pushBase has the registry hold a base image: one of harness.Lab.Image, or "toolchain".
// Debian's buildah makes that one, so that its layers are as those of most images are and
// not as bob would make them.
func pushBase(ctx context.Context, lab *harness.Lab, t *harness.Traffic, name string) (err error) {
	if name != "toolchain" {
		_, err := lab.Image(ctx, name)
		return err
	}
	if done, err := t.Registry.Has(ctx, t.Registry.Prefix+"/"+name+":latest"); done || err != nil {
		return err
	}
	if _, err := lab.Image(ctx, "debian"); err != nil {
		return err
	}
	dir, err := writeBuild(lab, name, toolchain, nil)
	if err != nil {
		return err
	}
	site, err := openSite(ctx, lab, t, debianBuildah(lab), filepath.Join(dir, "site"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.close()) }()
	_, err = site.build(ctx, []job{{dir: dir, ref: t.Prefix + "/" + name, args: arguments(t), keep: true}})
	return err
}
