"""Parameters fitted to published traces: the only place where their numbers stand. The traces are not needed to run.

A table is a set of points of the trace's own quantile function, "percentile:tokens", placed so that straight lines
between them follow it; the median, p90 and p99 are always among them. Mean, p50, p90 and p99 of 200,000 draws agree
with the traces within 2 %. Correlation: in Azure-conv most prompts of 930-1,200 tokens are answered with about 400
tokens and few others are, so outputs are fitted for each band of prompts; in the other sets prompt and output are
all but independent (rank correlation -0.02 in Azure-code, 0.11 in OSC, 0.22 in LMSYS) and are drawn so.
"""

from __future__ import annotations

from workloads.lengths import Joint, LogNormal, Quantiles

AZURE_CONV_SOURCE = (
    "prompt and output lengths: Azure LLM inference trace 2023, conversation"
    " (AzurePublicDataset, CC-BY 4.0; 19,366 requests)"
)
AZURE_CONV = Joint(
    prompt=Quantiles.parse(
        "0:2 0.88:27 3.56:179 3.99:181 9.06:203 11.59:216 12.81:238 15.2:372 16.92:378 33.54:409 38.32:437"
        " 39.43:500 40.8:843 42.66:931 44.4:978 50:1020 68.99:1122 75.48:1200 77.57:1282 81.96:1364 82.57:1451"
        " 90:2734 90.82:3124 91.67:4009 91.68:4034 98.49:4109 99:4142 99.3:4240 99.77:5492 99.94:6465 99.99:7668"
        " 100:14050"
    ),
    bands=(203, 377, 409, 500, 930, 1200, 1450, 4020),
    outputs=(
        Quantiles.parse(
            "0:11 4.52:12 11.1:69 16.66:89 24.82:110 41.63:142 95.65:223 96.89:241 98.29:267 99.44:345 100:1000"
        ),
        Quantiles.parse(
            "0:7 9.27:18 14.24:18 23.24:56 32.18:64 63.3:101 63.86:101 72.01:133 95.9:217 98.29:217 100:436"
        ),
        Quantiles.parse("0:15 0.67:46 3.28:57 12.85:75 20:82 63.17:100 73.08:106 83.93:118 96.6:149 99.13:170 100:200"),
        Quantiles.parse(
            "0:25 1.64:58 4.43:74 7.99:80 64.16:104 74.29:111 83.71:123 96.6:170 98.95:201 99.85:447 100:739"
        ),
        Quantiles.parse(
            "0:10 3.88:40 18.6:71 54.57:104 70.38:122 76.26:139 79.04:161 81.4:382 96.79:429 99.58:476 100:649"
        ),
        Quantiles.parse(
            "0:27 4.07:89 6.22:121 7.23:363 8.62:373 13.33:378 69.52:420 83.88:443 89.01:470 98.29:623 100:1000"
        ),
        Quantiles.parse(
            "0:26 1.2:42 19.42:108 20.94:121 64.23:218 68.39:236 70.76:257 72.81:373 94.9:440 99.12:598 100:954"
        ),
        Quantiles.parse("0:15 3:39 5.41:44 33.03:72 65.77:104 73.91:113 88.4:140 96.6:170 99.24:221 99.61:300 100:594"),
        Quantiles.parse(
            "0:17 2.57:27 9.05:33 57.19:59 75.82:78 86.72:105 93.21:136 97.4:174 98.84:240 99.75:494 100:757"
        ),
    ),
)

# 19,365 gaps over 3,501.7 s; their standard deviation is 1.094 of their mean and neighbours hardly correlate (0.06).
AZURE_CONV_RATE_PER_S = 5.530
AZURE_CONV_ARRIVAL_CV = 1.094
AZURE_CONV_ARRIVALS_SOURCE = (
    "arrivals: rate and gap variation of Azure LLM inference trace 2023, conversation (CC-BY 4.0)"
)

AZURE_CODE_SOURCE = (
    "prompt and output lengths: Azure LLM inference trace 2023, code (AzurePublicDataset, CC-BY 4.0; 8,819 requests)"
)
AZURE_CODE = Joint(
    prompt=Quantiles.parse(
        "0:3 0.23:9 3.31:53 8.5:122 13.43:198 15.25:238 16.55:265 32.91:878 34.44:917 42.17:1139 45.86:1292 50:1469"
        " 57.19:1779 71.22:2491 78.47:3014 84.33:3767 89.22:4796 90:5188 90.2:5381 93.82:6539 95.21:7390 95.79:7427"
        " 99:7436 100:7437"
    ),
    outputs=(
        Quantiles.parse(
            "0:6 6.78:6 11.7:7 12.75:7 18.06:8 32.32:10 33.44:10 39:11 50:13 69.3:19 77.79:26 83.58:35 90:55"
            " 93.79:77 96.4:112 97.85:159 99:251 99.43:316 99.61:404 99.94:864 99.98:1019 100:1899"
        ),
    ),
)

OSC_SOURCE = (
    "prompt and output lengths: 2,000 OSC summaries, Llama-2 tokenizer (NEO artefact, evaluation/data, Apache-2.0)"
)
OSC = Joint(
    prompt=Quantiles.parse(
        "0:29 0.15:148 1.7:182 9.43:229 16.43:263 33.6:318 47.14:362 50:371 50.64:374 70.7:444 73.41:454 86.01:497"
        " 87.27:502 90:514 99:555 100:589"
    ),
    outputs=(
        Quantiles.parse(
            "0:15 0.98:25 3.39:32 12.87:36 13.5:36 29.91:40 49.37:45 50:45 62.52:48 69.97:50 70.33:50 90:56"
            " 97.16:60 99:65 99.75:81 100:129"
        ),
    ),
)

LMSYS_SOURCE = (
    "message and answer lengths: first turns of LMSYS-Chat-1M, 100,000 of them (Nanoflow, datasets/traces, Apache-2.0)"
)
LMSYS = Joint(
    prompt=Quantiles.parse(
        "0:2 1.81:2 2.59:2 12.34:7 13.26:7 35.58:16 50:28 59.87:39 64.95:49 78.47:95 81.75:126 84.52:169 87.49:233"
        " 90:302 93.5:383 95.18:439 98.02:641 99:750 99.68:965 99.89:1254 99.98:1832 100:3894"
    ),
    outputs=(
        Quantiles.parse(
            "0:1 2.25:3 5.24:8 9.32:11 13.27:16 21.18:30 26.74:43 34.85:70 43.83:107 50:140 55.93:183 79.14:375"
            " 83.19:418 90:512 94.55:515 96.25:547 97.5:630 99:850 99.57:910 99.9:1062 99.99:2010 100:4819"
        ),
    ),
)

# No public set gives token counts of reasoning traces directly. SYNTHETIC-1's size does: 8,338,942,891 bytes for
# 894,086 DeepSeek-R1 traces, 9.3 kB each with the problem; at an assumed 2.8 bytes a token of mathematical text that
# is some 3,300 tokens, of which about 130 are the problem. Spread, range and problem length are our assumption, not a
# measurement.
REASONING_SOURCE = (
    "output length: an estimate, mean 3,200, from the size of PrimeIntellect/SYNTHETIC-1-SFT-Data (894,086"
    " DeepSeek-R1 traces, 9.3 kB each, at an assumed 2.8 bytes a token); spread, range 1,000-8,000 and prompt length"
    " are assumed"
)
REASONING = Joint(prompt=LogNormal(110, 0.6, 20, 600), outputs=(LogNormal(2850, 0.6, 1000, 8000),))
