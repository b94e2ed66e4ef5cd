package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/bobbuild/bob/integration/harness"
)

// A peer is a builder that takes part.
type peer struct {
	name string
	// build returns the programs that build j and push the result, one after the other.
	// What the builder keeps for later builds lies below home.
	build func(home string, j job) []harness.Invocation
	// daemon, if it isn't nil, returns what has to run while builds do, and the socket on
	// which it answers then.
	daemon func(home string) (i harness.Invocation, socket string)
	// forgets is whether the peer has a faster way to build for which job.keep is false.
	forgets bool
	// imports is whether the peer can take a cache from a registry.
	imports bool
}

// A job is one build to do.
type job struct {
	dir                  string   // holds Dockerfile and context
	ref                  string   // where the image goes, without a tag
	base                 string   // reference of the first base, for the floor
	targets              []string // the stages to build; nil: the last
	target               string   // the one of them that peer.build is to build; "" = the last
	args                 map[string]string
	keep                 bool   // whether later builds are to find the result of each step
	exportTo, importFrom string // references of caches in the registry; "" = neither
	floor                []string
}

// arguments returns flags for the build arguments, each after the text.
func (j job) arguments(before string) []string {
	var flags []string
	for _, name := range slices.Sorted(maps.Keys(j.args)) {
		flags = append(flags, before+name+"="+j.args[name])
	}
	return flags
}

// findPeers returns the builders of this machine: bob, Debian's buildah, what is found in
// dir unless that is "", and the floor.
func findPeers(lab *harness.Lab, dir, floor string) []peer {
	peers := []peer{bob("bob", "")}
	for _, known := range []struct {
		files []string
		peer  func(paths []string) peer
	}{
		{[]string{"bob-old"}, func(paths []string) peer { return bob("bob-old", paths[0]) }},
		{[]string{"buildkitd", "buildctl"}, func(paths []string) peer { return buildkit(paths[0], paths[1]) }},
		{[]string{"buildah"}, func(paths []string) peer { return buildah("buildah", paths[0], lab) }},
		{[]string{"executor"}, func(paths []string) peer { return kaniko(paths[0]) }},
	} {
		var paths []string
		for _, name := range known.files {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err == nil && dir != "" {
				paths = append(paths, path)
			}
		}
		if len(paths) == len(known.files) {
			peers = append(peers, known.peer(paths))
		}
	}
	return append(peers, debianBuildah(lab), leastWork(floor))
}

// bob returns the bob of this checkout, or that of program unless it is "".
func bob(name, program string) peer {
	return peer{name: name, imports: true, build: func(home string, j job) []harness.Invocation {
		args := append([]string{"build", "--progress=plain", "-t", j.ref, "-f", "Dockerfile"}, j.arguments("--build-arg=")...)
		if j.target != "" {
			args = append(args, "--target="+j.target)
		}
		if j.exportTo != "" {
			args = append(args, "--cache-to=type=registry,mode=max,ref="+j.exportTo)
		}
		if j.importFrom != "" {
			args = append(args, "--cache-from=type=registry,ref="+j.importFrom)
		}
		return []harness.Invocation{{
			Program: program, Args: append(args, "context"),
			Dir: j.dir, Home: filepath.Join(home, "home"), Cache: filepath.Join(home, "cache"), Env: []string{"BOB_CACHE_SYNC=true"},
		}}
	}}
}

func debianBuildah(lab *harness.Lab) peer { return buildah("debian's buildah", "buildah", lab) }

// buildah isolates by chroot, the fastest that it has for a user.
func buildah(name, program string, lab *harness.Lab) peer {
	policy := filepath.Join(lab.Dir, "policy.json") // see main
	return peer{name: name, forgets: true, build: func(home string, j job) []harness.Invocation {
		storage := []string{"--root", home + "/root", "--runroot", home + "/run", "--storage-driver", "overlay"}
		registry := []string{"--tls-verify=false", "--signature-policy", policy}
		local := filepath.Base(j.ref)
		bud := slices.Concat(storage, []string{"bud", fmt.Sprintf("--layers=%t", j.keep), "--network", "host", "-t", local, "-f", "Dockerfile"},
			registry, j.arguments("--build-arg="))
		if j.target != "" {
			bud = append(bud, "--target="+j.target)
		}
		push := slices.Concat(storage, []string{"push"}, registry, []string{local, "docker://" + j.ref})
		var all []harness.Invocation
		for _, args := range [][]string{append(bud, "context"), push} {
			all = append(all, harness.Invocation{
				Program: program, Args: args, Dir: j.dir, Home: home,
				Env: []string{"XDG_RUNTIME_DIR=" + home, "TMPDIR=" + home, "BUILDAH_ISOLATION=chroot", lab.NoAuth()},
			})
		}
		return all
	}}
}

// buildkit is rootless in a user namespace with the user's ranges, as under rootlesskit.
func buildkit(buildkitd, buildctl string) peer {
	return peer{
		name: "buildkit", imports: true,
		daemon: func(home string) (harness.Invocation, string) {
			socket := filepath.Join(home, "socket")
			return harness.Invocation{
				Program: "unshare", Dir: home, Home: home, Env: []string{"XDG_RUNTIME_DIR=" + home, "TMPDIR=" + home},
				Args: []string{
					"--map-root-user", "--map-auto", "--mount", buildkitd, "--rootless", "--root", home + "/root",
					"--addr", "unix://" + socket, "--oci-worker-net=host",
				},
			}, socket
		},
		build: func(home string, j job) []harness.Invocation {
			args := append([]string{
				"--addr", "unix://" + filepath.Join(home, "socket"), "build", "--progress=plain", "--frontend=dockerfile.v0",
				"--local=context=context", "--local=dockerfile=.", "--output=type=image,push=true,registry.insecure=true,name=" + j.ref,
			}, j.arguments("--opt=build-arg:")...)
			if j.target != "" {
				args = append(args, "--opt=target="+j.target)
			}
			if j.exportTo != "" {
				args = append(args, "--export-cache=type=registry,mode=max,registry.insecure=true,ref="+j.exportTo)
			}
			if j.importFrom != "" {
				args = append(args, "--import-cache=type=registry,registry.insecure=true,ref="+j.importFrom)
			}
			return []harness.Invocation{{Program: buildctl, Args: args, Dir: j.dir, Home: home}}
		},
	}
}

// inRoot makes an empty root for kaniko, which unpacks images over the root that it finds,
// and executes it there: the root, the executor, the context, then its arguments.
const inRoot = `root=$1 executor=$2 context=$3; shift 3
mkdir -p "$root/proc" "$root/dev" "$root/etc" "$root/tmp" "$root/kaniko" "$root/workspace"
cp /etc/resolv.conf "$root/etc/"; cp "$context/../Dockerfile" "$root/kaniko/"; touch "$root/kaniko/executor"
mount --bind "$executor" "$root/kaniko/executor"
mount --rbind "$context" "$root/workspace"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
exec chroot "$root" /kaniko/executor "$@"`

// kaniko runs in a user and a mount namespace, chrooted to a root of its own. It isolates
// nothing from what RUN starts.
func kaniko(executor string) peer {
	return peer{name: "kaniko", forgets: true, build: func(home string, j job) []harness.Invocation {
		root := filepath.Join(home, filepath.Base(j.ref)+j.target)
		for exists(root) {
			root += "-again"
		}
		args := []string{
			"--map-root-user", "--map-auto", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", inRoot, "sh",
			root, executor, filepath.Join(j.dir, "context"),
			"--force", "--insecure", "--insecure-pull", "--dockerfile=/kaniko/Dockerfile", "--context=dir:///workspace", "--destination=" + j.ref,
		}
		if j.keep {
			args = append(args, "--cache", "--cache-copy-layers", "--cache-run-layers", "--cache-repo="+j.ref+"/cache")
		}
		if j.target != "" {
			args = append(args, "--target="+j.target)
		}
		return []harness.Invocation{{Program: "unshare", Args: append(args, j.arguments("--build-arg=")...), Dir: j.dir, Home: home}}
	}}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

const floorName = "floor"

// leastWork is the program that does only what no builder gets around.
func leastWork(program string) peer {
	return peer{name: floorName, forgets: true, build: func(home string, j job) []harness.Invocation {
		return []harness.Invocation{{
			Program: program, Dir: j.dir, Home: home,
			Args: append([]string{"-home", home, "-base", j.base, "-to", j.ref, "-copy", "context", "-known=" + fmt.Sprint(j.keep)}, j.floor...),
		}}
	}}
}
