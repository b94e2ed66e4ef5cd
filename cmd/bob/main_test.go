package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/diagnosis"
	"github.com/peterbourgon/ff/v3/ffcli"
)

// Bad command lines end before anything happens: one line, exit code 2.
func TestBadCommandLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string // part of the message
	}{
		{[]string{"biuld", dir}, `unknown command "biuld" (did you mean build?)`},
		{[]string{"build"}, "takes one argument"},
		{[]string{"build", dir, dir}, "takes one argument"},
		{[]string{"build", filepath.Join(dir, "none")}, "no such directory"},
		{[]string{"build", file}, "not a directory"},
		{[]string{"build", "https://example.com/x.git?branch=a&tag=b"}, "branch conflicts with tag"},
		{[]string{"build", "--build-context", "x", dir}, "want name=value"},
		{[]string{"build", "--build-context", "x=" + filepath.Join(dir, "none"), dir}, "no such directory"},
		{[]string{"build", "--build-context", "x=target:y", dir}, "buildx bake"},
		{[]string{"build", "--build-context", "x=oci-layout://" + dir, dir}, "no OCI image layout"},
		{[]string{"build", "--tga", "x", dir}, "unknown flag --tga (did you mean --tag?)"},
		{[]string{"build", dir, "--progres=plain"}, "unknown flag --progres (did you mean --progress?)"},
		{[]string{"build", "-t"}, "-t"},
		{[]string{"build", "-t", "host/UPPER", dir}, "host/UPPER"},
		{[]string{"build", "--jobs", "x", dir}, "--jobs"},
		{[]string{"build", "--jobs", "-1", dir}, "--jobs -1"},
		{[]string{"build", "--push=perhaps", dir}, "neither true nor false"},
		{[]string{"build", "--push", dir}, "name it with -t"},
		{[]string{"build", "-o", "type=registry", dir}, "name it with -t"},
		{[]string{"build", "-o", "type=floppy", dir}, "floppy"},
		{[]string{"build", "-o", "type=oci,dset=x", dir}, `unknown field "dset"`},
		{[]string{"build", "-o", "type=local", dir}, "dest"},
		{[]string{"build", "-o", "type=docker,tar=false,dest=x", dir}, "tar=false"},
		{[]string{"build", "--platform", "linux/amd64,", dir}, "--platform"},
		{[]string{"build", "--platform", "linux/amd64,linux/arm64", "-o", "type=docker,dest=x", dir}, "use type=oci"},
		{[]string{"build", "--cache-from", "type=gha", dir}, "bob doesn't know caches of type gha"},
		{[]string{"build", "--cache-to", "type=s3,bucket=b", dir}, "bob doesn't know caches of type s3"},
		{[]string{"build", "--cache-to", "type=floppy", dir}, `no type "floppy"`},
		{[]string{"build", "--cache-to", "ref=h/c", dir}, "type is missing"},
		{[]string{"build", "--cache-from", "type=inline", dir}, "type=registry,ref=IMAGE"},
		{[]string{"build", "--cache-from", "type=registry,ref=h/c,mode=max", dir}, `unknown field "mode" of type=registry; want ref`},
		{[]string{"build", "--cache-from", "type=registry,ref=h/C", dir}, "h/C"},
		{[]string{"build", "--cache-from", "type=local", dir}, "src, the directory, is missing"},
		{[]string{"build", "--cache-from", "type=local,src=x,digest=y", dir}, "--cache-from type=local"},
		{[]string{"build", "--cache-to", "type=registry", dir}, "ref is missing"},
		{[]string{"build", "--cache-to", "type=registry,ref=h/c,ref=h/d", dir}, "ref is given twice"},
		{[]string{"build", "--cache-to", "type=registry,ref=h/c,mode=most", dir}, "want min or max"},
		{[]string{"build", "--cache-to", "type=registry,ref=h/c,image-manifest=false", dir}, "a cache is an image manifest"},
		{[]string{"build", "--cache-to", "type=registry,ref=h/c,compression=lz4", dir}, "want gzip, zstd or uncompressed"},
		{[]string{"build", "--cache-to", "type=registry,ref=h/c,compression-level=10", dir}, "want 0 to 9"},
		{[]string{"build", "--cache-to", "type=registry,ref=h/c,mounts=", dir}, "want the ID of a cache mount"},
		{[]string{"build", "--cache-to", "type=inline,mounts=go", dir}, `unknown field "mounts" of type=inline`},
		{[]string{"build", "--cache-to", "type=inline,mode=max", dir}, `unknown field "mode" of type=inline`},
		{[]string{"build", "--compression", "estargz", dir}, "estargz is not supported; want gzip, zstd or uncompressed"},
		{[]string{"build", "--compression", "lz4", dir}, "want gzip, zstd or uncompressed"},
		{[]string{"build", "--compression-level", "high", dir}, "--compression-level high: want a number"},
		{[]string{"build", "--compression-level", "10", dir}, "want 0 to 9"},
		{[]string{"build", "--compression", "zstd", "--compression-level=-1", dir}, "want 0 to 22"},
		{[]string{"build", "--compression", "uncompressed", "--compression-level=1", dir}, "has no levels"},
		{[]string{"build", "--compression", "zstd", "--oci-mediatypes=false", dir}, "use OCI media types"},
		{[]string{"build", "-o", "type=oci,dest=x,compression=zstd,oci-mediatypes=false", dir}, "use OCI media types"},
		{[]string{"build", "-o", "type=oci,dest=x,compression=fast", dir}, "compression=fast: want gzip"},
		{[]string{"build", "-o", "type=oci,dest=x,oci-mediatypes=perhaps", dir}, "oci-mediatypes=perhaps: want true or false"},
		{[]string{"build", "-o", "type=oci,dest=x,push=true", dir}, "push goes with type=image"},
		{[]string{"build", "-o", "type=local,dest=x,compression=zstd", dir}, "compression is about an image"},
		{[]string{"build", "-o", "type=image,store=true", dir}, "store: bob has no image store"},
		{[]string{"build", "-o", "type=image,dest=x", dir}, "written to a file"},
		{[]string{"build", "-o", "type=image,name=UPPER,push=true", dir}, "name: "},
		{[]string{"build", "-o", "type=image,push=true", dir}, "name it with -t"},
		{[]string{"build", "-t", "h/a", "-o", "type=registry", "-o", "type=registry,compression=zstd", dir}, "same fields"},
		{[]string{"build", "-o", "type=image,name=h/a:1,push=true,push-by-digest=true", dir}, "leave the tag out of h/a:1"},
		{[]string{"build", "--annotation", "x", dir}, "want [place:]key=value"},
		{[]string{"build", "--annotation", "cover:x=y", dir}, `"cover" is no place for an annotation`},
		{[]string{"build", "--annotation", "manifest[vax]:x=y", dir}, "--annotation manifest[vax]:x=y: "},
		{[]string{"build", "--annotation", "index:x=y", dir}, "annotate the manifest"},
		{[]string{"build", "--annotation", "manifest[linux/s390x]:x=y", dir}, "platform linux/s390x is not built"},
		{[]string{"build", "--annotation", "manifest-descriptor:x=y", "--oci-mediatypes=false", dir}, "use OCI media types"},
		{[]string{"build", "-o", "type=oci,dest=x,annotation-cover.x=y", dir}, `"cover" is no place`},
		{[]string{"build", "--provenance=mode=max", dir}, "--provenance=mode=max: bob makes no attestations"},
		{[]string{"build", "--sbom=true", dir}, "--sbom=true: bob makes no attestations"},
		{[]string{"build", "--attest", "type=sbom", dir}, "--attest type=sbom: bob makes no attestations"},
		{[]string{"build", "--platform", "a/b/c/d", dir}, "a/b/c/d"},
		{[]string{"build", "--network", "bridge", dir}, "default, host, none or private"},
		{[]string{"build", "--add-host", "x", dir}, "name:address"},
		{[]string{"build", "--shm-size", "big", dir}, "--shm-size big"},
		{[]string{"build", "--ulimit", "nofile", dir}, "--ulimit nofile"},
		{[]string{"build", "--ulimit", "nosuch=1", dir}, "--ulimit nosuch"},
		{[]string{"build", "--label", "=x", dir}, "--label"},
		{[]string{"build", "--build-arg", "=x", dir}, "--build-arg"},
		{[]string{"build", "--build-arg", "", dir}, "--build-arg"},
		{[]string{"build", "--iidfile", "/nowhere/id", dir}, "--iidfile /nowhere/id"},
		{[]string{"build", "--metadata-file", "/nowhere/m", dir}, "--metadata-file /nowhere/m"},
		{[]string{"build", "--progress", "loud", dir}, "loud"},
		{[]string{"build", "-f", "-", "-"}, "can't both be read"},
		{[]string{"build", "--registries-conf", "/nowhere/r.conf", dir}, "/nowhere/r.conf: no such file"},
		{[]string{"build", "--registry-ca", file, dir}, "--registry-ca: " + file + " holds no certificate"},
		{[]string{"build", "--registry-key", file, dir}, "--registry-cert and --registry-key go together"},
		{[]string{"build", "--registry-cert", file, "--registry-key", file, dir}, "--registry-cert: "},
		{[]string{"build", "--proxy", "localhost:8080", dir}, "want unix:///path"},
		{[]string{"registry", "serv"}, `unknown command "serv" (did you mean serve?)`},
		{[]string{"registry", "serve", "--listen", "0.0.0.0:5000"}, "not a loopback address"},
		{[]string{"registry", "serve", "--listen", "5000"}, "--listen 5000"},
		{[]string{"copy", "x"}, "a source and a destination"},
		{[]string{"copy", "x", "UPPER"}, "UPPER"},
		{[]string{"copy", "x", "oci:"}, "path is missing"},
		{[]string{"copy", "--platform", "a/b/c/d", "x", "y"}, "--platform a/b/c/d"},
		{[]string{"copy", "--jobs", "-1", "x", "y"}, "--jobs -1"},
		{[]string{"push", "x"}, "at least one reference"},
		{[]string{"push", "x", "host/UPPER"}, "host/UPPER"},
		{[]string{"inspect"}, "one name"},
		{[]string{"inspect", "docker-archive:x:UPPER"}, "UPPER"},
		{[]string{"inspect", "--format", "yaml", "x"}, "--format yaml"},
		{[]string{"proxy", "x"}, "no arguments"},
		{[]string{"proxy"}, "--base-ref or --target-ref"},
		{[]string{"proxy", "--target-ref", "host/UPPER"}, "host/UPPER"},
		{[]string{"proxy", "--target-ref", "x", "--auth", `{"auths":{"h":{"auth":"s3cr3t`}, "--auth or WORKSPACEKIT_BOBPROXY_AUTH: not JSON from byte"},
		{[]string{"proxy", "--target-ref", "x", "--additional-auth", `{"h":"s3cr3t"}`}, `WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH: login of "h"`},
		{[]string{"proxy", "--target-ref", "x", "--auth", "@" + file + "x"}, "no such file"},
		{[]string{"proxy", "--target-ref", "x", "--registry-ca", file}, "--registry-ca: " + file + " holds no certificate"},
		{[]string{"build", "--ca-bundle", file, dir}, "--ca-bundle: " + file + " holds no certificate"},
		{[]string{"build", "--ca-bundle", filepath.Join(dir, "none"), dir}, "--ca-bundle: open " + filepath.Join(dir, "none") + ": no such file"},
		{[]string{"proxy", "--target-ref", "x", "--log-format", "xml"}, "text or json"},
		{[]string{"proxy", "--target-ref", "x", "--grace", "long"}, "--grace"},
		{[]string{"proxy", "--target-ref", "x", "--listen", "0.0.0.0:0"}, "--listen-any"},
		{[]string{"proxy", "--target-ref", "x", "--listen", "unix://here"}, "absolute path"},
		{[]string{"proxy", "--target-ref", "x", "--listen", "unix://" + file}, "no socket"},
		{[]string{"version", "x"}, "no arguments"},
		{[]string{"help", "nothing"}, `unknown command or topic "nothing"`},
		{[]string{"help", "isolatoin"}, `did you mean isolation?`},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			err := run(t.Context(), tt.args, strings.NewReader(""), &stdout, &stderr)
			if code := exitCode(err); code != exitUsage {
				t.Errorf("exit code %d, want %d: %v", code, exitUsage, err)
			}
			if err == nil {
				return
			}
			report(&stderr, err)
			if got := stderr.String(); !strings.Contains(got, tt.want) || strings.Contains(got, "s3cr3t") || strings.Count(got, "\n") != 1 {
				t.Errorf("said %q, want one line with %q", got, tt.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("standard output: %q", stdout.String())
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"", []string{"Usage: bob <command>", "build", "registry", "version", "help"}},
		{"help", []string{"Usage: bob <command>", "Topics (bob help TOPIC):", "isolation"}},
		{"-h", []string{"Usage: bob <command>"}},
		{"help help", []string{"bob help [command | topic]"}},
		{"help build", []string{"# build: an image from a Dockerfile", "- `-t`, `--tag`:"}},
		{"help push", []string{"Usage: bob push"}},
		{"build -h", []string{"Usage: bob build", "-t, --tag reference", "--build-arg NAME=value"}},
		{"build --help", []string{"Usage: bob build", "-f, --file path"}},
		{"help registry serve", []string{"Usage: bob registry serve", "--listen address"}},
		{"registry", []string{"serve"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			var stdout bytes.Buffer
			if err := run(t.Context(), strings.Fields(tt.args), strings.NewReader(""), &stdout, io.Discard); err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("%q is missing in:\n%s", want, stdout.String())
				}
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{cli.Errorf("x"), 2},
		{diagnosis.ErrWithoutRUN, 3},
		{diagnosis.ErrNone, 1},
		{&signalError{syscall.SIGTERM}, 143},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	if err := run(t.Context(), []string{"version"}, nil, &stdout, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(stdout.String(), "bob ") {
		t.Errorf("printed %q", stdout.String())
	}
}

// parsedOptions returns what a command line asks for.
func parsedOptions(t *testing.T, line string) (o *options) {
	t.Helper()
	cfg := &buildConfig{stdout: io.Discard}
	c := &ffcli.Command{Name: "build", FlagSet: flag.NewFlagSet("", flag.ContinueOnError)}
	cfg.register(c.FlagSet)
	c.Exec = func(ctx context.Context, _ []string) (err error) {
		o, err = cfg.options(ctx)
		return err
	}
	if err := cli.Run(t.Context(), c, strings.Fields(line), io.Discard); err != nil {
		t.Fatal(err)
	}
	return o
}

// What the flags ask for about pushing.
func TestWhereTheImageGoes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args    string
		push    []string
		outputs int
		names   []string
	}{
		{"", nil, 0, nil},
		{"-t h/a:1", []string{"h/a:1"}, 0, nil},
		{"-t h/a:1 -t h/b", []string{"h/a:1", "h/b"}, 0, nil},
		{"-t h/a:1 --push=false", nil, 0, nil},
		{"-t h/a:1 -o type=oci,dest=/x", nil, 1, []string{"h/a:1"}},
		{"-t h/a:1 -o type=oci,dest=/x --push", []string{"h/a:1"}, 1, []string{"h/a:1"}},
		{"-o type=registry,name=h/c", []string{"h/c"}, 0, nil},
		{"-o type=image,name=h/c,push=true", []string{"h/c"}, 0, nil},
		{"-t h/a:1 -o type=image", nil, 0, nil},
		{"-t h/a:1 -o type=image,push=true", []string{"h/a:1"}, 0, nil},
		{"-t h/a:1 -o type=image --push", []string{"h/a:1"}, 0, nil},
		{"-t h/a:1 -o type=registry -o /dir", []string{"h/a:1"}, 1, []string{"h/a:1"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			o := parsedOptions(t, tt.args)
			if !reflect.DeepEqual(o.build.Tags, tt.push) || len(o.build.Outputs) != tt.outputs {
				t.Errorf("push to %q, %d outputs; want %q, %d", o.build.Tags, len(o.build.Outputs), tt.push, tt.outputs)
			}
			for _, out := range o.build.Outputs {
				if !reflect.DeepEqual(out.Names, tt.names) {
					t.Errorf("names %q, want %q", out.Names, tt.names)
				}
			}
		})
	}
}

// The proxies that docker's configuration has for containers are build arguments,
// unless --build-arg gives others.
func TestProxiesOfDocker(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	file := filepath.Join(dir, "config.json")
	text := `{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "local"}, "tcp://other": {"ftpProxy": "x"}}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"HTTP_PROXY": "", "http_proxy": "http://p:1", "NO_PROXY": "local", "no_proxy": "local", "a": "b"}
	if got, err := buildArgs(t.Context(), []string{"HTTP_PROXY=", "a=b"}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := buildArgs(t.Context(), nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("of a bad file: %v", err)
	}
}

// TestEpochOfTheEnvironment: SOURCE_DATE_EPOCH is a build argument without being
// named as one, unless --build-arg gives another value, if only an empty one.
func TestEpochOfTheEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name, env string
		flags     []string
		want      map[string]string
	}{
		{"set", "1600000000", nil, map[string]string{"SOURCE_DATE_EPOCH": "1600000000"}},
		{"empty", "", nil, map[string]string{}},
		{"flag wins", "1600000000", []string{"SOURCE_DATE_EPOCH=5"}, map[string]string{"SOURCE_DATE_EPOCH": "5"}},
		{"flag turns it off", "1600000000", []string{"SOURCE_DATE_EPOCH="}, map[string]string{"SOURCE_DATE_EPOCH": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("SOURCE_DATE_EPOCH", tt.env)
			got, err := buildArgs(t.Context(), tt.flags)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
