package integration_test

import (
	"bytes"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// A suite is one of distribution-spec's own conformance suites, pinned by a module
// file below .ci/conformance.
type suite struct {
	build  []string // arguments of the go command; it writes to the file that follows
	prefix string   // of the names of its tests
	report string   // a JUnit report, below its working directory
}

const suitePackage = "github.com/opencontainers/distribution-spec/conformance"

var (
	// The suite of the specification's main branch.
	httpSuite = suite{
		build:  []string{"build", "-modfile=.ci/conformance/http.mod", "-o"},
		prefix: "OCI Conformance Test/",
		report: "results/junit.xml",
	}
	// The one that v1.1 was released with.
	ginkgoSuite = suite{
		build:  []string{"test", "-c", "-modfile=.ci/conformance/ginkgo.mod", "-o"},
		prefix: "[It] OCI Distribution Conformance Tests ",
		report: "junit.xml",
	}
)

// An exception names tests that don't pass, and why that is right. All that match
// must be there and not pass.
type exception struct {
	tests string // a regular expression of whole names
	why   string
}

// skippedByGinkgo are tests that this suite runs for no registry with this configuration.
var skippedByGinkgo = []exception{
	{`.* Setup Get tag name from environment`, "for registries that can't be pushed to"},
	{`.* Populate registry with test tags \(no push\)`, "for registries that can't be pushed to"},
	{`Push .* Cross-mounting of nonexistent blob should yield session id`, "the suite skips it always"},
	{`Push .* automatic content discovery disabled should return a 202`, "for registries that don't mount without from"},
}

const (
	notPassedOn = "neither a push nor a pull needs it: the proxy answers 404 (registry/proxy, section What is passed on)"
	oneTag      = "whatever tag the client says, the reference's is asked for"
	noSuchPath  = "what is neither a tag nor a digest is no path of the proxy's: 404, not 400"
	wholeBlobs  = "the proxy makes the start of an upload of a POST with a digest, as end-4b permits"
	byReference = "the proxy mounts from the other alias alone"
	anyOrder    = "docker-registry 2.8 takes chunks in any order"
)

// throughProxyHTTP holds for distribution 2.8 behind bob proxy.
var throughProxyHTTP = []exception{
	{`empty/(tag list|referrers)`, notPassedOn},
	{`.*/tag-list`, notPassedOn},
	{`.*/referrers`, notPassedOn},
	{`.*/(blob|manifest|tag)-delete`, notPassedOn},
	{`.*/blob-post-cancel`, "the suite asks for it only beyond v1.1"},
	{`.*/blob-post-only`, wholeBlobs},
	{`.*/blob-mount-anonymous`, byReference},
	{`(artifacts|index)-with-subject/(head/manifest-head|pull/manifest)-by-tag`, oneTag},
	{`missing-manifest/by-tag`, oneTag},
	{`invalid-digest-format/manifest-put`, noSuchPath},
	{`sha256 blobs/chunked out-of-order( and put chunk)?/blob-patch-chunked`, anyOrder},
	{`non-distributable-layers/(push|head|pull)/manifest-.*`, "docker-registry 2.8 answers 500 to the manifest of such layers"},
}

var throughProxyGinkgo = []exception{
	{`Pull Setup Get tag name from environment`, "for registries that can't be pushed to"},
	{`Pull Pull manifests .* manifest path \(tag\) should yield 200 response`, "the suite learns the tag from the list of tags; " + notPassedOn},
	{`Pull Teardown Delete .*|Push Teardown Delete (manifest|layer) .*`, notPassedOn},
	{`Content (Discovery|Management) .*`, notPassedOn},
	{`Push .* GET request to blob URL from prior request should yield 200 or 404 based on response code`, "the registry has the blob already; " + wholeBlobs},
	{`Push .* Cross-mounting of nonexistent blob should yield session id`, "the suite skips it always"},
	{`Push .* Cross-mounting without from, .*`, "skipped; " + byReference},
	{`Push Blob Upload Chunked (Out-of-order|Retry previous|Get on stale|PUT request with digest).*`, anyOrder},
}

// TestConformance runs both suites against the small registry, all of it, and against
// bob proxy, what pushes and pulls.
func TestConformance(t *testing.T) {
	t.Parallel()
	dir, err := lab.TempDir(t.Name())
	check(t, err)
	served, _ := startServe(t, dir)
	guarded, err := lab.Guarded()
	check(t, err)
	through := func(name string) string {
		return startProxy(t, nil, "--listen=127.0.0.1:0", "--base-ref="+guarded.Prefix+"/"+name+"/base:1",
			"--target-ref="+guarded.Prefix+"/"+name+"/target:1",
			`--auth={"auths":{"`+guarded.Host+`":{"username":"`+harness.GuardedUser+`","password":"`+harness.GuardedPassword+`"}}}`).address
	}
	programs := make(map[string]string)
	for name, s := range map[string]suite{"http": httpSuite, "ginkgo": ginkgoSuite} {
		programs[name] = s.compile(t)
	}
	for name, tt := range map[string]struct {
		suite      suite
		program    string
		env        []string
		exceptions []exception
	}{
		"serve by HTTP": {httpSuite, programs["http"], []string{
			"OCI_REGISTRY=" + served, "OCI_TLS=disabled", "OCI_REPO1=http/one", "OCI_REPO2=http/two",
			"OCI_VERSION=dev", // also what the specification has got since
		}, nil},
		"serve by ginkgo": {ginkgoSuite, programs["ginkgo"], []string{
			"OCI_ROOT_URL=http://" + served, "OCI_NAMESPACE=ginkgo/one", "OCI_CROSSMOUNT_NAMESPACE=ginkgo/two", "OCI_AUTOMATIC_CROSSMOUNT=1",
			"OCI_TEST_PULL=1", "OCI_TEST_PUSH=1", "OCI_TEST_CONTENT_DISCOVERY=1", "OCI_TEST_CONTENT_MANAGEMENT=1",
		}, skippedByGinkgo},
		"proxy by HTTP": {httpSuite, programs["http"], []string{
			"OCI_REGISTRY=" + through("http"), "OCI_TLS=disabled", "OCI_REPO1=target", "OCI_REPO2=base",
			"OCI_API_TAGS_LIST=false", "OCI_API_TAGS_DELETE=false", "OCI_API_TAGS_ATOMIC=false", "OCI_API_REFERRER=false",
			"OCI_API_BLOBS_DELETE=false", "OCI_API_BLOBS_ATOMIC=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_MANIFESTS_ATOMIC=false",
			"OCI_DATA_SHA512=false", // docker-registry 2.8 has no others than sha256
		}, throughProxyHTTP},
		"proxy by ginkgo": {ginkgoSuite, programs["ginkgo"], []string{
			"OCI_ROOT_URL=http://" + through("ginkgo"), "OCI_NAMESPACE=target", "OCI_CROSSMOUNT_NAMESPACE=base",
			"OCI_TEST_PULL=1", "OCI_TEST_PUSH=1",
		}, throughProxyGinkgo},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compare(t, tt.suite.run(t, tt.program, tt.env), tt.exceptions)
		})
	}
}

// compile returns the suite's program.
func (s *suite) compile(t *testing.T) string {
	t.Helper()
	root, err := harness.Module(t.Context())
	check(t, err)
	program := filepath.Join(t.TempDir(), "suite")
	cmd := exec.CommandContext(t.Context(), "go", append(s.build, program, suitePackage)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return program
}

// A junitCase is one test of a report.
type junitCase struct {
	Name    string `xml:"name,attr"`
	Status  string `xml:"status,attr"`
	Output  string `xml:"system-out"` // errors, of the HTTP suite
	Failure string `xml:"failure"`
}

// run runs the suite and returns what it says of each test.
func (s *suite) run(t *testing.T, program string, env []string) []junitCase {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	runErr := cmd.Run() // whether all has passed: the report tells
	text, err := os.ReadFile(filepath.Join(cmd.Dir, s.report))
	if err != nil {
		t.Fatalf("no report: %v, %v\n%s", err, runErr, output.Bytes())
	}
	var report struct {
		Suites []struct {
			Cases []junitCase `xml:"testcase"`
		} `xml:"testsuite"`
	}
	check(t, xml.Unmarshal(text, &report))
	var cases []junitCase
	for _, suite := range report.Suites {
		for _, c := range suite.Cases {
			if name, ok := strings.CutPrefix(c.Name, s.prefix); ok {
				c.Name = name
				cases = append(cases, c)
			}
		}
	}
	if len(cases) < 70 {
		t.Fatalf("the suite has only %d tests: %v\n%s", len(cases), runErr, output.Bytes())
	}
	return cases
}

// compare holds what didn't pass against the exceptions, and the other way round.
func compare(t *testing.T, cases []junitCase, exceptions []exception) {
	t.Helper()
	bad := make(map[string]bool) // by name; a test may have several cases
	for _, c := range cases {
		if c.Status == "passed" {
			bad[c.Name] = bad[c.Name] || false
			continue
		}
		bad[c.Name] = true
		if !covered(exceptions, c.Name) {
			t.Errorf("%s: %s: %.500s%.500s", c.Status, c.Name, c.Output, c.Failure)
		}
	}
	for _, e := range exceptions {
		pattern, found := regexp.MustCompile("^(?:"+e.tests+")$"), false
		for name, notPassed := range bad {
			if pattern.MatchString(name) {
				found = true
				if !notPassed {
					t.Errorf("%s passes, although %s", name, e.why)
				}
			}
		}
		if !found {
			t.Errorf("no test is called %s", e.tests)
		}
	}
}

func covered(exceptions []exception, name string) bool {
	for _, e := range exceptions {
		if regexp.MustCompile("^(?:" + e.tests + ")$").MatchString(name) {
			return true
		}
	}
	return false
}
