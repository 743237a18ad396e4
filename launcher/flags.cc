#include "launcher/flags.h"

#include <gflags/gflags.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/json_fields.h"
#include "kernels/weight_format.h"
#include "launcher/frontier_flags.h"
#include "launcher/plan_flags.h"
#include "launcher/policies.h"
#include "launcher/replay_flags.h"

DEFINE_string(model, "", "checkpoint directory in Hugging Face format (required)");
DEFINE_string(config, "", "JSON file with the server's settings; flags override it");
DEFINE_string(host, "", "address to listen on (default 127.0.0.1)");
DEFINE_int32(port, -1, "port to listen on, 0 picks a free one (default 8000)");
DEFINE_int32(admin_port, -1, "port of the admin listener on 127.0.0.1, 0 picks a free one (default: none)");
DEFINE_string(admin_key_file, "", "file whose first line admin requests must send as 'Authorization: Bearer KEY'");
DEFINE_string(served_model_name, "", "name that requests use (default: the checkpoint directory's name)");
DEFINE_int64(max_model_len, -1, "longest prompt + answer in tokens (default: the checkpoint's, as far as the KV cache goes)");
DEFINE_string(operating_point, "", "operating_point.json or frontier.json: thresholds that skip experts");
DEFINE_int32(level, -1, "level of the operating point file; 0 skips nothing (default: 1 for operating_point.json)");
DEFINE_int32(threads, -1, "threads of each rank's kernels; 0 shares the usable cores of a host among its ranks (default 0)");
DEFINE_string(device, "", "where the model computes: cpu, cuda, or auto: a GPU if one can be used (default auto)");
DEFINE_string(experts, "", "format of the experts: bf16, int8-gN, int4-gN, int4a-gN, int3a-gN or int2a-gN (N = 32, 64, 128)");
DEFINE_string(dense, "", "format of attention, dense layers and head; never of a vision tower (default: the checkpoint's)");
DEFINE_string(out, "", "where the result goes (required): a new or empty directory of quantize, a file of the others");
DEFINE_string(calibration, "",
              "quantize: samples over which inputs are measured before rounding, *.jsonl, *.txt, or a folder as for --data; "
              "frontier: calibration.json of 'skipper calibrate' (required)");
DEFINE_int64(calibration_limit, -1, "at most so many of its samples, spread evenly (default: all)");
DEFINE_string(data, "", "directory with *.txt, vqa.jsonl and chat.jsonl (required)");
DEFINE_string(json, "", "file for the results as JSON");
DEFINE_bool(kl, false, "true: also how far predictions are from level 0's, KL and flips; with a level above 0");
DEFINE_string(objective, "pairs", "what each level saves a share of: pairs, bytes (of at least 2 ranks), or time (modelled)");
DEFINE_string(methods, "",
              "measured beside the searched ladder: all, or some of reduced_k, reduced_k_renormalized, single, tail_mass, "
              "adaptive_k, mc_moe, diep, ace, gmlg, dmt, and from 2 ranks local_exempt, destination, with commas between "
              "(default: none)");
DEFINE_string(ratings, "", "file of 'skipper experts', which the methods diep and ace need");
DEFINE_bool(precision, false, "true: plans for a sweep of memory sizes (--memory) instead of levels of skipping");
DEFINE_string(html, "", "file for a page with the curves of all methods that were measured");
DEFINE_int32(grid, -1,
             "thresholds of each class that the search tries, besides 0; 100 is finest, each costs about two passes over the "
             "data for each of 15 targets (default 24)");
DEFINE_int32(destination_grid, -1, "thresholds of the destination rule to try, besides 0 (default: 0 for pairs, else 3)");
DEFINE_int32(shadow_grid, -1, "thresholds of shadow copies that the search tries, besides 0 (default: 3 where --plan has any)");
DEFINE_int32(generated_steps, -1,
             "at most so many passes a level in search of a lower threshold of generated tokens (default 0: that of text)");
DEFINE_int64(limit, -1, "at most so many samples, spread evenly; every fifth is held out from the search (default: all)");
DEFINE_int64(text_windows, -1, "at most so many of the samples are windows of texts, the others questions (default 32)");
DEFINE_string(bypass, "", "what the experts of a skipped layer return while alpha is measured: zero, or identity (default zero)");
DEFINE_int64(reference_memory, -1, "MB on each rank for what the unskipped model predicts (default 2000)");
DEFINE_string(points, "", "file with one operating point as JSON a line, or - for standard input (required)");
DEFINE_bool(answers, false, "true: also whether each question is answered right at each point, by generating the answer");
DEFINE_string(save_reference, "", "keep the unskipped model's predictions in this file, .rankN for each rank");
DEFINE_string(reference, "", "compare with the predictions that --save_reference kept there, not with this run's own");
DEFINE_string(audit_file, "", "file for the routing decisions of some requests, one JSON line each; .rankN for several ranks");
DEFINE_double(audit_rate, -1.0, "share of the requests that are audited, 0 to 1 (default 0.01; calibrate: 1, all samples)");
DEFINE_int64(audit_max_bytes, -1, "an audit file of this size takes no more lines (default 1073741824)");
DEFINE_double(imbalance_alarm, 0.0, "warn when the fullest ranks have more than this times the mean load; 0 never (default 0)");
DEFINE_string(audit, "", "audit file to read (required)");
DEFINE_string(cache, "", "hit rates of caches of so many experts, as 24,96, or with --model of so many bytes, as 200M,1G");
DEFINE_int32(ranks, -1,
             "plan: ranks that will serve (default 1); replay: place experts anew over so many, each on a host of its own");
DEFINE_string(memory, "",
              "memory of each rank's processor for all it holds, as 2G, 24Gi or, for ranks that differ, 80G,80G,40G; serve and "
              "eval then plan when they start");
DEFINE_string(host_memory, "", "with GPUs: host memory of each rank for experts that a GPU reads there (default: none)");
DEFINE_string(disk, "",
              "directory on whose disk experts may rest that fit nowhere else; serve and eval write them there, a file for each "
              "rank (default: none)");
DEFINE_double(max_loss, -1.0, "the fastest plan whose predicted loss is no more than this");
DEFINE_string(target, "",
              "quality: the least loss; throughput: the fastest that loses no more than four bits everywhere (default quality)");
DEFINE_string(verify, "",
              "data as for --data: measure the plan and plans with one format on it, and take the best (default: do not)");
DEFINE_string(formats, "",
              "formats to measure, with commas between (default int8-g64,int4a-g32,int4-g64,int3a-g32,int2a-g32; of machine also "
              "int4-g32)");
DEFINE_int32(plans, -1, "random plans against which the sums of losses are held; 0 for none (default 30)");
DEFINE_bool(hashes, false,
            "true: also reads the weights and writes a hash of each expert as it will be in memory, for serve to check");
DEFINE_string(plan, "", "plan.json of 'skipper plan': formats, memory and rank of every expert (default: blocks of one format)");
DEFINE_string(policies, "", "plans to switch between while serving, as quality=a.json,small=b.json; POST /admin/policy switches");
DEFINE_string(policy, "", "the one of --policies that serves first (default: the first)");
DEFINE_string(profile, "", "profile.json of 'skipper profile' (default: losses by the model's shape alone)");
DEFINE_string(machine, "", "machine.json of 'skipper machine', by which speed is predicted (default: assumed rates)");
DEFINE_string(shadow_format, "", "also copies of other ranks' experts in this format, for points with tau_shadow (default none)");
DEFINE_string(shadow_memory, "", "of each rank's --memory, for such copies alone (default: what experts leave)");
DEFINE_string(owners_of, "", "plan.json whose ranks keep their experts, for a plan that differs in formats and memory alone");

DEFINE_string(tenants, "", "file with the memory of this host that servers share, and each one's weight, floor and ceiling");
DEFINE_string(tenant, "", "which of --tenants this server is: its memory is its share");

namespace skipper {
namespace {

struct Command {
  const char* summary;
  std::vector<std::string> flags;
  const char* examples;
};

using CommandTable = std::map<std::string, Command>;

// Those that run the model.
CommandTable running_commands() {
  return {
      {"serve",
       {"answer OpenAI-style HTTP requests; run it under mpirun to shard the experts over ranks",
        {"model", "config", "host", "port", "served_model_name", "max_model_len", "operating_point", "level", "plan", "memory",
         "tenants", "tenant", "policies", "policy", "host_memory", "disk", "profile", "machine", "target", "max_loss", "experts",
         "dense", "threads", "device", "admin_port", "admin_key_file", "audit_file", "audit_rate", "audit_max_bytes",
         "imbalance_alarm"},
        "  skipper serve --model models/demo\n"
        "  mpirun -n 4 skipper serve --model models/demo --port 8000\n"
        "  mpirun -n 4 skipper serve --model models/demo --operating_point configs/demo_operating_point.json --level 1\n"
        "  mpirun -n 4 skipper serve --model models/demo --plan plan.json\n"
        "  mpirun -n 4 skipper serve --model models/demo --memory 210M --profile profile.json\n"}},
      {"eval",
       {"measure perplexity and answers on held-out texts and questions",
        {"model", "config", "data", "json", "max_model_len", "operating_point", "level", "kl", "plan", "memory", "host_memory",
         "disk", "profile", "machine", "target", "max_loss", "experts", "dense", "threads", "device", "audit_file", "audit_rate",
         "audit_max_bytes"},
        "  skipper eval --model models/demo --data models/demo/eval\n"
        "  mpirun -n 4 skipper eval --model models/demo --data models/demo/eval --json result.json\n"
        "  skipper eval --model models/demo --data models/demo/eval --operating_point frontier.json --level 3 --kl true\n"}},
      {"calibrate",
       {"measure how much the experts of each layer matter to text and vision tokens, before 'skipper frontier'",
        {"model", "data", "out", "bypass", "limit", "text_windows", "reference_memory", "config", "max_model_len", "experts",
         "dense", "threads", "audit_file", "audit_rate", "audit_max_bytes"},
        "  skipper calibrate --model models/demo --data models/demo/calibration --out calibration.json\n"
        "  mpirun -n 4 skipper calibrate --model models/demo --data models/demo/calibration --out calibration.json \\\n"
        "    --audit_file routes.jsonl\n"
        "\nKilled, it goes on from FILE.partial when it is started again with the same flags, on any number of ranks. The audit\n"
        "is of the unskipped pass: what 'skipper replay' decides otherwise.\n"}},
      {"frontier",
       {"search a ladder of operating points: the least loss of answers for each share of skipped pairs, saved bytes or time",
        {"model", "data", "calibration", "out", "objective", "grid", "destination_grid", "generated_steps", "limit", "methods",
         "ratings", "html", "precision", "memory", "profile", "machine", "text_windows", "config", "max_model_len", "plan",
         "shadow_grid", "experts", "dense", "threads", "reference_memory"},
        "  skipper frontier --model models/demo --data models/demo/calibration --calibration calibration.json \\\n"
        "    --out frontier.json\n"
        "  mpirun -n 4 skipper frontier --model models/demo --data models/demo/calibration --calibration calibration.json \\\n"
        "    --out frontier.json --objective bytes --methods all --html frontier.html\n"
        "  skipper serve --model models/demo --operating_point frontier.json --level 3\n"
        "  skipper frontier --precision true --model models/demo --data models/demo/calibration --profile profile.json \\\n"
        "    --out precision.json --html precision.html\n"
        "\nWith --precision: plans for a sweep of memory sizes (--memory 205M,210M,220M, else 8 of them) and single formats, on\n"
        "one rank. Killed, it goes on from FILE.partial when it is started again with the same flags.\n"}},
      {"experts",
       {"compare the experts of each layer with one another, for the methods diep and ace of 'skipper frontier'; on one rank",
        {"model", "data", "out", "limit", "config", "max_model_len", "experts", "dense", "threads"},
        "  skipper experts --model models/demo --data models/demo/calibration --out experts.json\n"
        "\nBy 96 samples unless --limit says otherwise.\n"}},
      {"measure",
       {"measure operating points sample by sample: KL, flips, likelihood, pairs and bytes, as lines of JSON on standard output",
        {"model", "data", "points", "answers", "limit", "text_windows", "reference", "save_reference", "reference_memory",
         "config", "max_model_len", "plan", "experts", "dense", "threads"},
        "  skipper measure --model models/demo --data models/demo/calibration --points points.jsonl > measured.jsonl\n"
        "  mpirun -n 4 skipper measure --model models/demo --data models/demo/eval/vqa.jsonl --points - --answers true\n"
        "\nA point is a line of an operating_point.json. Each is measured and answered before the next is read.\n"}},
  };
}

CommandTable other_commands() {
  return {
      {"quantize",
       {"round weights to integers and write a checkpoint that serve and eval load; its operating points are its own",
        {"model", "experts", "dense", "out", "calibration", "calibration_limit", "threads"},
        "  skipper quantize --model models/demo --experts int8-g64 --out demo-int8\n"
        "  skipper quantize --model models/demo --experts int4a-g32 --dense int8-g64 --out demo-int4\n"
        "  skipper quantize --model models/demo --experts int3a-g32 --calibration models/demo/calibration --out demo-int3\n"
        "  skipper eval --model demo-int4 --data models/demo/eval\n"}},
      {"profile",
       {"measure what rounding each expert costs, on one rank, for 'skipper plan --profile'",
        {"model", "data", "out", "formats", "plans", "limit", "text_windows", "operating_point", "level", "reference_memory",
         "config", "max_model_len", "dense", "threads"},
        "  skipper profile --model models/demo --data models/demo/calibration --out profile.json\n"
        "  skipper profile --model models/demo --data models/demo/calibration --out profile.json \\\n"
        "    --operating_point frontier.json --level 3\n"
        "\nPasses over the samples: one for each format, MoE layer and random plan. With an operating point, use and losses are\n"
        "those of what skipping leaves.\n"}},
      {"plan",
       {"choose the format, memory and rank of every expert by the memory of the ranks, without reading weights unless asked",
        {"model", "ranks", "memory", "host_memory", "disk", "max_loss", "target", "profile", "machine", "owners_of", "out",
         "config", "device", "hashes", "verify", "shadow_format", "shadow_memory", "threads"},
        "  skipper plan --model models/demo --memory 210M --out plan.json\n"
        "  skipper plan --model models/demo --ranks 4 --memory 210M --profile profile.json --out plan.json\n"
        "  skipper plan --model models/demo --memory 208M --profile profile.json --verify models/demo/calibration \\\n"
        "    --hashes true --out plan.json\n"
        "  skipper plan --model models/demo --ranks 2 --memory 250M --shadow_format int3a-g32 --out plan.json\n"
        "  skipper plan --model MODEL --ranks 8 --memory 80G --device cuda --host_memory 100G --max_loss 0.02 --out plan.json\n"
        "\nExit status 1, and a line that says what would help, where the experts do not fit.\n"}},
      {"machine",
       {"measure memory, disk, links, kernels and GPU of this machine, by which 'skipper plan --machine' predicts speed",
        {"out", "disk", "formats", "threads", "device"},
        "  skipper machine --out machine.json\n"
        "  mpirun -n 2 skipper machine --out machine.json --disk /var/tmp\n"
        "\nAll ranks measure at once, as many as will serve: they share memory and disk of their host.\n"}},
      {"replay",
       {"make the decisions of an audit file again: as logged, at another operating point, or with caches of experts on disk",
        {"audit", "operating_point", "level", "ranks", "cache", "model", "experts", "json"},
        "  skipper replay --audit audit.jsonl\n"
        "  skipper replay --audit audit.jsonl --operating_point frontier.json --level 3\n"
        "  skipper replay --audit audit.jsonl --operating_point frontier.json --level 3 --ranks 8\n"
        "  skipper replay --audit audit.jsonl --cache 24,48,20M --model models/demo --experts int4a-g32\n"}},
      {"tenants",
       {"show the servers that share this host's memory: share, use and fairness; status 1 when one uses more than its share",
        {"tenants"},
        "  skipper tenants --tenants /run/skipper/tenants.json\n"
        "  mpirun -n 2 skipper serve --model models/demo --tenants /run/skipper/tenants.json --tenant chat\n"}},
      {"doctor",
       {"say which of MPI, GPUs and libraries this machine has, what does not fit together and what to do; changes nothing",
        {},
        "  skipper doctor\n"
        "  mpirun -n 2 skipper doctor\n"}},
      {"help", {"show this help, or that of one command", {}, "  skipper help serve\n"}},
      {"version", {"print the version and what the build contains", {}, "  skipper version\n"}},
  };
}

const CommandTable& commands() {
  static const CommandTable table = [] {
    CommandTable all = running_commands();
    all.merge(other_commands());
    return all;
  }();
  return table;
}

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (const auto& [name, command] : commands()) names.push_back(name);
  return names;
}

std::string did_you_mean(const std::string& name, const std::vector<std::string>& candidates, const std::string& prefix) {
  const auto nearest = nearest_name(name, candidates);
  return nearest ? "; did you mean '" + prefix + *nearest + "'?" : std::string(".");
}

const Command& find_command(const std::string& name) {
  const auto found = commands().find(name);
  if (found != commands().end()) return found->second;
  throw UsageError("unknown command '" + name + "'" + did_you_mean(name, command_names(), "") + " See: skipper help");
}

// "'skipper calibrate', 'skipper frontier'"; empty when no command takes the flag.
std::string commands_with(const std::string& flag) {
  std::string names;
  for (const auto& [name, command] : commands()) {
    if (std::find(command.flags.begin(), command.flags.end(), flag) == command.flags.end()) continue;
    names += (names.empty() ? "'skipper " : ", 'skipper ") + name + "'";
  }
  return names;
}

// "--port", "8000" → {"port", "8000"}; "--port=8000" likewise; one dash counts as two.
struct FlagText {
  std::string name;
  std::optional<std::string> value;
};

FlagText split_flag(const std::string& argument) {
  const size_t start = argument.rfind("--", 0) == 0 ? 2 : 1;
  const size_t equals = argument.find('=');
  if (equals == std::string::npos) return {argument.substr(start), std::nullopt};
  return {argument.substr(start, equals - start), argument.substr(equals + 1)};
}

class Parser {
 public:
  Parser(std::string name, const Command& command) : name_(std::move(name)), command_(command) {}

  void parse(const std::vector<std::string>& arguments, int depth) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string& argument = arguments[i];
      if (argument.size() < 2 || argument[0] != '-') {
        positional.push_back(argument);
        continue;
      }
      FlagText flag = split_flag(argument);
      check_known(flag.name);
      if (!flag.value) {
        if (i + 1 >= arguments.size()) throw UsageError("flag --" + flag.name + " needs a value");
        flag.value = arguments[++i];
      }
      if (flag.name == "flagfile") {
        parse_file(*flag.value, depth);
      } else {
        set(flag.name, *flag.value);
      }
    }
  }

  std::vector<std::string> positional;

 private:
  void check_known(const std::string& flag) const {
    const auto& known = command_.flags;
    if (flag == "flagfile" || std::find(known.begin(), known.end(), flag) != known.end()) return;
    const std::string others = commands_with(flag);
    if (!others.empty()) {
      throw UsageError("flag --" + flag + " belongs to " + others + ", not to 'skipper " + name_ + "'. See: skipper help " +
                       name_);
    }
    throw UsageError("unknown flag --" + flag + did_you_mean(flag, known, "--") + " See: skipper help " + name_);
  }

  static void set(const std::string& flag, const std::string& value) {
    gflags::CommandLineFlagInfo info;
    gflags::GetCommandLineFlagInfo(flag.c_str(), &info);
    // −1 stands for "not given", and no count or port is negative.
    if (info.type != "string" && value.rfind('-', 0) == 0) throw UsageError("flag --" + flag + ": " + value + " is negative");
    if (!gflags::SetCommandLineOption(flag.c_str(), value.c_str()).empty()) return;
    throw UsageError("flag --" + flag + ": '" + value + "' is not a valid " +
                     (info.type == "string" ? "text" : info.type == "double" ? "number" : "integer"));
  }

  void parse_file(const std::string& path, int depth) {
    constexpr int kMaxDepth = 8;
    if (depth >= kMaxDepth) {
      throw UsageError("flagfile " + path + ": flag files include one another too deeply; remove the circle");
    }
    std::ifstream file(path);
    if (!file) throw UsageError("flagfile " + path + ": cannot be opened; check the path");
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
      if (!line.empty() && line[0] != '#') lines.push_back(line);
    }
    parse(lines, depth + 1);
  }

  std::string name_;
  const Command& command_;
};

CommandLine read_flags() {
  CommandLine line;
  line.model = FLAGS_model;
  line.config = FLAGS_config;
  line.host = FLAGS_host;
  line.port = FLAGS_port;
  line.admin_port = FLAGS_admin_port;
  line.admin_key_file = FLAGS_admin_key_file;
  line.served_model_name = FLAGS_served_model_name;
  line.max_model_len = FLAGS_max_model_len;
  line.operating_point = FLAGS_operating_point;
  line.level = FLAGS_level;
  line.experts = FLAGS_experts;
  line.dense = FLAGS_dense;
  line.out = FLAGS_out;
  line.calibration = FLAGS_calibration;
  line.calibration_limit = FLAGS_calibration_limit;
  line.data = FLAGS_data;
  line.objective = FLAGS_objective;
  line.methods = FLAGS_methods;
  line.html = FLAGS_html;
  line.precision = FLAGS_precision;
  line.ratings = FLAGS_ratings;
  line.grid = FLAGS_grid;
  line.destination_grid = FLAGS_destination_grid;
  line.generated_steps = FLAGS_generated_steps;
  line.shadow_grid = FLAGS_shadow_grid;
  line.limit = FLAGS_limit;
  line.text_windows = FLAGS_text_windows;
  line.bypass = FLAGS_bypass;
  line.reference_memory = FLAGS_reference_memory;
  line.json = FLAGS_json;
  line.kl = FLAGS_kl;
  line.threads = FLAGS_threads;
  line.device = FLAGS_device;
  line.imbalance_alarm = FLAGS_imbalance_alarm;
  line.points = FLAGS_points;
  line.answers = FLAGS_answers;
  line.save_reference = FLAGS_save_reference;
  line.reference = FLAGS_reference;
  line.audit = FLAGS_audit;
  line.cache = FLAGS_cache;
  line.ranks = FLAGS_ranks;
  line.memory = FLAGS_memory;
  line.host_memory = FLAGS_host_memory;
  line.disk = FLAGS_disk;
  line.max_loss = FLAGS_max_loss;
  line.target = FLAGS_target;
  line.profile = FLAGS_profile;
  line.owners_of = FLAGS_owners_of;
  line.shadow_format = FLAGS_shadow_format;
  line.shadow_memory = FLAGS_shadow_memory;
  line.machine = FLAGS_machine;
  line.plan = FLAGS_plan;
  line.policies = FLAGS_policies;
  line.policy = FLAGS_policy;
  line.tenants = FLAGS_tenants;
  line.tenant = FLAGS_tenant;
  line.verify = FLAGS_verify;
  line.formats = FLAGS_formats;
  line.plans = FLAGS_plans;
  line.hashes = FLAGS_hashes;
  line.audit_file = FLAGS_audit_file;
  line.audit_rate = FLAGS_audit_rate;
  line.audit_max_bytes = FLAGS_audit_max_bytes;
  return line;
}

// Empty: not given.
void check_format(const std::string& flag, const std::string& text) {
  if (text.empty()) return;
  try {
    parse_weight_format(text, "flag --" + flag);
  } catch (const InvalidRequest& error) {
    throw UsageError(error.what());
  }
}

void check_shadows(const CommandLine& line) {
  check_format("shadow_format", line.shadow_format);
  if (line.shadow_memory.empty() || !line.shadow_format.empty()) return;
  throw UsageError("flag --shadow_memory needs --shadow_format, which the copies have");
}

void check_calibration(const CommandLine& line) {
  if (line.calibration_limit == 0) throw UsageError("flag --calibration_limit: 0 samples tell nothing; expected at least 1");
  if (line.calibration_limit > 0 && line.calibration.empty()) {
    throw UsageError("flag --calibration_limit " + std::to_string(line.calibration_limit) + " needs --calibration FILE");
  }
}

void check_audit(const CommandLine& line) {
  if (!(line.audit_rate <= 1.0)) {
    throw UsageError("flag --audit_rate: " + std::to_string(line.audit_rate) + " is out of range; expected 0 to 1");
  }
  if (line.audit_file.empty() && (line.audit_rate >= 0.0 || line.audit_max_bytes >= 0)) {
    throw UsageError(std::string("flag --") + (line.audit_rate >= 0.0 ? "audit_rate" : "audit_max_bytes") +
                     " needs --audit_file FILE");
  }
  if (!(line.imbalance_alarm == 0.0 || line.imbalance_alarm >= 1.0)) {
    throw UsageError("flag --imbalance_alarm: " + std::to_string(line.imbalance_alarm) +
                     " is under 1, which an even load has; expected 1 or more, or 0 for none");
  }
  if (line.ranks >= 0 && line.operating_point.empty() && !line.audit.empty()) {
    throw UsageError("flag --ranks " + std::to_string(line.ranks) + " needs --operating_point FILE");
  }
  if (line.ranks == 0 || line.ranks > 65536) {
    throw UsageError("flag --ranks: " + std::to_string(line.ranks) + " is out of range; expected 1 to 65536");
  }
}

void check_admin(const CommandLine& line) {
  if (line.admin_port > 65535) {
    throw UsageError("flag --admin_port: " + std::to_string(line.admin_port) + " is out of range; expected 0 to 65535");
  }
  if (line.admin_port >= 0 && line.admin_key_file.empty()) {
    throw UsageError("flag --admin_port " + std::to_string(line.admin_port) +
                     " needs --admin_key_file FILE; whoever can change the server must show its key");
  }
  if (line.admin_port < 0 && !line.admin_key_file.empty()) {
    throw UsageError("flag --admin_key_file " + line.admin_key_file + " needs --admin_port PORT");
  }
}

void check_required(const CommandLine& line, const Command& command) {
  const auto takes = [&](const char* flag) {
    return std::find(command.flags.begin(), command.flags.end(), flag) != command.flags.end();
  };
  if (takes("model") && line.model.empty() && !takes("cache")) {
    throw UsageError("flag --model is missing; give the checkpoint directory");
  }
  if (takes("audit") && line.audit.empty()) throw UsageError("flag --audit is missing; give the audit file to read");
  if (takes("data") && line.data.empty()) throw UsageError("flag --data is missing; give the directory of texts and questions");
  if (takes("points") && line.points.empty()) {
    throw UsageError("flag --points is missing; give the file of operating points, or - for standard input");
  }
  if (!line.reference.empty() && !line.save_reference.empty()) {
    throw UsageError("flags --reference and --save_reference exclude each other; give one");
  }
  if (takes("out") && line.out.empty()) throw UsageError("flag --out is missing; give the file or directory to make");
  if (takes("memory")) check_plan_flags(line);
  if (takes("tenants")) check_tenant_flags(line);
  if (takes("grid")) check_frontier_flags(line);
  if (takes("cache")) check_replay_flags(line);
  if (takes("calibration_limit") && line.experts.empty()) {
    throw UsageError("flag --experts is missing; give a weight format such as int4a-g32");
  }
  if (!line.plan.empty() && !line.experts.empty()) {
    throw UsageError("flags --plan and --experts exclude each other, for a plan has a format for every expert; give one");
  }
  check_format("experts", line.experts);
  check_shadows(line);
  check_policy_flags(line);
  check_format("dense", line.dense);
  check_calibration(line);
  check_audit(line);
  check_admin(line);
  if (!line.device.empty() && line.device != "cpu" && line.device != "cuda" && line.device != "auto") {
    throw UsageError("flag --device: '" + line.device + "' is unknown; expected cpu, cuda or auto");
  }
  if (line.port < -1 || line.port > 65535) {
    throw UsageError("flag --port: " + std::to_string(line.port) + " is out of range; expected 0 to 65535");
  }
  if (line.threads > 1024) {
    throw UsageError("flag --threads: " + std::to_string(line.threads) + " is out of range; expected 0 to 1024");
  }
  if (line.level >= 0 && line.operating_point.empty() && line.level != 0) {
    throw UsageError("flag --level " + std::to_string(line.level) +
                     " needs --operating_point FILE; without one there is only level 0");
  }
}

}  // namespace

CommandLine parse_command_line(const std::vector<std::string>& arguments) {
  std::string name = arguments.empty() ? "help" : arguments[0];
  if (name == "--help" || name == "-h") name = "help";
  if (name == "--version") name = "version";
  const Command& command = find_command(name);
  Parser parser(name, command);
  const std::vector<std::string> rest(arguments.begin() + (arguments.empty() ? 0 : 1), arguments.end());
  if (std::find(rest.begin(), rest.end(), "--help") != rest.end()) {
    CommandLine help;
    help.command = "help";
    help.arguments = {name};
    return help;
  }
  parser.parse(rest, 0);
  if (name != "help" && !parser.positional.empty()) {
    throw UsageError("unexpected argument '" + parser.positional[0] + "'. See: skipper help " + name);
  }
  CommandLine line = read_flags();
  line.command = name;
  line.arguments = parser.positional;
  check_required(line, command);
  return line;
}

std::string help_text(const std::string& name) {
  std::ostringstream text;
  if (name.empty()) {
    text << "Skipper serves Mixture-of-Experts models, text and vision, with experts sharded over ranks.\n\n"
         << "usage: skipper COMMAND [--flag value ...]\n\n";
    for (const auto& [command_name, command] : commands()) {
      text << "  " << command_name << std::string(10 - command_name.size(), ' ') << command.summary << "\n";
    }
    text << "\nskipper help COMMAND shows its flags and examples. Exit status: 1 for errors, 2 for wrong usage.\n";
    return text.str();
  }
  const Command& command = find_command(name);
  text << "skipper " << name << ": " << command.summary << "\n\nflags (also from a file: --flagfile FILE):\n";
  for (const std::string& flag : command.flags) {
    gflags::CommandLineFlagInfo info;
    gflags::GetCommandLineFlagInfo(flag.c_str(), &info);
    text << "  --" << flag << std::string(18 - std::min<size_t>(17, flag.size()), ' ') << info.description << "\n";
  }
  text << "\nexamples:\n" << command.examples;
  return text.str();
}

}  // namespace skipper
