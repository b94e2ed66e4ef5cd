package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"slices"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/snapshot"
	"github.com/distribution/reference"
	"github.com/peterbourgon/ff/v3/ffcli"
)

type prefetchConfig struct {
	isolation isolationFlags
	store     storeFlags
	view      viewFlags

	platform, images cli.Text
	registries       registryConfig
	stderr           io.Writer
}

func newPrefetchCommand(stderr io.Writer) *ffcli.Command {
	cfg := &prefetchConfig{stderr: stderr}
	fs := flag.NewFlagSet("bob prefetch", flag.ContinueOnError)
	fs.Var(&cfg.images, "cache-images", "`JSON` list of images that are fetched too, for platforms that set the variable")
	fs.Var(&cfg.platform, "platform", "`os/arch[/variant]` to fetch for (default: this machine's)")
	cfg.isolation.register(fs, "that of the builds to come; always so without root")
	cfg.view.register(fs, "print nothing but errors")
	cfg.store.register(fs)
	cfg.registries.register(fs)
	registerRetryFor(fs, &cfg.registries.retryFor)
	return &ffcli.Command{
		Name:       "prefetch",
		ShortUsage: "bob prefetch [flags] [image...]",
		ShortHelp:  "Fetch base images ahead, so that builds find them",
		LongHelp: "Fetch images and unpack them in the cache, so that builds that start from them need not. Each is tried,\n" +
			"whatever becomes of the others.",
		FlagSet: fs,
		Exec:    cfg.exec,
	}
}

func (cfg *prefetchConfig) exec(ctx context.Context, args []string) error {
	refs, err := cfg.references(args)
	if err != nil {
		return err
	}
	if cfg.platform == "" {
		cfg.platform = "local"
	}
	p, errPlatform := parsePlatform(string(cfg.platform))
	mode, errMode := cfg.view.mode()
	if err := errors.Join(errPlatform, errMode, cfg.registries.check(ctx), cfg.isolation.check()); err != nil {
		return err
	}
	cache, err := cacheDir(cfg.store.dir)
	if err != nil {
		return err
	}
	limit, err := cfg.store.unpacked.bytes(cache)
	if err != nil {
		return err
	}
	m, err := cfg.isolation.enter(cache)
	if err != nil {
		return err
	}
	m.store.MaxUnpacked = limit
	store, err := snapshot.Open(cache, m.store)
	if err != nil {
		return err
	}
	view, err := newView(mode, cfg.stderr)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	defer cfg.store.syncLater(cache)
	cfg.registries.options.Documents = store
	b := &executor.Builder{Store: store, Registry: cfg.registries.client(warnIn(view)), Progress: view.Event}
	return interrupted(ctx, errors.Join(b.Prefetch(ctx, refs, p), view.Close(), store.Close()))
}

// references returns the images to fetch.
func (cfg *prefetchConfig) references(args []string) ([]string, error) {
	var listed []string
	if cfg.images != "" {
		if err := json.Unmarshal([]byte(cfg.images), &listed); err != nil {
			return nil, cli.Errorf(`BOB_CACHE_IMAGES: want a JSON list as ["alpine:3"]: %v`, err)
		}
	}
	refs := slices.Concat(args, listed)
	if len(refs) == 0 {
		return nil, cli.Errorf("bob prefetch takes images to fetch, as arguments or in BOB_CACHE_IMAGES")
	}
	for i, ref := range refs {
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil {
			return nil, cli.Errorf("%s: %v", ref, err)
		}
		refs[i] = reference.TagNameOnly(named).String() // each image is fetched once, whatever it is called
	}
	return refs, nil
}
