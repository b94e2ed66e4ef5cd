package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/registry/transfer"
	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/peterbourgon/ff/v3/ffcli"
)

// copyConfig holds the flags of bob copy and bob push.
type copyConfig struct {
	platform       cli.Text
	registries     registryConfig
	unpacked       unpackLimit
	quiet          bool
	jobs           int
	stdout, stderr io.Writer
}

func newCopyCommand(stdout, stderr io.Writer) *ffcli.Command {
	cfg := &copyConfig{stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet("bob copy", flag.ContinueOnError)
	cfg.register(fs)
	return &ffcli.Command{
		Name:       "copy",
		ShortUsage: "bob copy [flags] <source> <destination>",
		ShortHelp:  "Copy an image between registries, layouts and archives",
		LongHelp: "Copy an image, with all its platforms and its attestations, or any other artifact. Each of the two places is\n" +
			"  [docker://]REFERENCE             at a registry\n" +
			"  oci:PATH[:TAG][@DIGEST]          in an OCI image layout, a directory or, made if PATH ends in .tar, a tar\n" +
			"  docker-archive:FILE[:REFERENCE]  in a tar of docker save, which holds one platform\n" +
			"and the source may be a path, if it begins with / or ./ or ends in .tar, to an archive of either kind. Digests stay\n" +
			"what they are, but those of docker archives. Standard output is the digest of the manifest at the destination and nothing else.",
		FlagSet: fs,
		Exec: func(ctx context.Context, args []string) error {
			if len(args) != 2 {
				return cli.Errorf("bob copy takes a source and a destination")
			}
			return cfg.copy(ctx, args[0], args[1:])
		},
	}
}

func (cfg *copyConfig) register(fs *flag.FlagSet) {
	fs.Var(&cfg.platform, "platform", "copy only the image for `os/arch[/variant]`, without the index around it")
	cfg.registries.register(fs)
	registerRetryFor(fs, &cfg.registries.retryFor)
	cfg.unpacked.register(fs)
	fs.BoolVar(&cfg.quiet, "quiet", false, "print only the digest, and errors")
	fs.IntVar(&cfg.jobs, "jobs", 0, "`number` of blobs that may move at once (default 4)")
}

// copy copies from src to all of dst.
func (cfg *copyConfig) copy(ctx context.Context, src string, dst []string) error {
	for _, place := range append([]string{src}, dst...) {
		if err := transfer.CheckPlace(place); err != nil {
			return cli.Errorf("%v", err)
		}
	}
	var errJobs error
	if cfg.jobs < 0 {
		errJobs = cli.Wrong("jobs", cfg.jobs, "a negative number")
	}
	p, err := optionalPlatform(cfg.platform)
	temp := os.TempDir()
	limit, errLimit := cfg.unpacked.bytes(temp)
	if err := errors.Join(errJobs, errLimit, err, cfg.registries.check(ctx)); err != nil {
		return err
	}
	notice := notices(cfg.stderr, cfg.quiet)
	d, err := transfer.Copy(ctx, cfg.registries.client(notice), src, dst[0], transfer.Options{
		Platform:    p,
		Also:        dst[1:],
		Jobs:        cfg.jobs,
		TempDir:     temp,
		MaxUnpacked: limit,
		Notice:      notice,
		Moving: func(d ocispec.Descriptor) {
			notice(fmt.Sprintf("copying %s, %s", d.Digest, units.HumanSize(float64(d.Size))))
		},
	})
	if err != nil {
		return interrupted(ctx, err)
	}
	_, err = fmt.Fprintln(cfg.stdout, d.Digest)
	return err
}
