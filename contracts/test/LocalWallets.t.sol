// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {vm} from "./Vm.sol";
import {AskingToken} from "./LensTargets.sol";
import {VerificationLens} from "../src/VerificationLens.sol";
import {BombWallet} from "../src/local/BombWallet.sol";
import {GasBurner} from "../src/local/GasBurner.sol";
import {HostileFactory} from "../src/local/HostileFactory.sol";
import {LiarWallet} from "../src/local/LiarWallet.sol";
import {SmartWallet} from "../src/local/SmartWallet.sol";
import {SmartWalletFactory} from "../src/local/SmartWalletFactory.sol";

contract LocalWalletsTest {
    uint256 private constant KEY = 0xA11CE;
    bytes32 private constant DIGEST = keccak256("digest");
    bytes4 private constant ACCEPTED = 0x1626ba7e;
    bytes4 private constant REFUSED = 0xffffffff;
    address private constant ALLOWED_FACTORY = 0x0BA5ED0c6AA8c49038F819E587E2633c4A9F428a;
    uint256 private constant CONTRACT = 500_000;
    uint256 private constant DEPLOY = 1_000_000;

    VerificationLens private lens;
    AskingToken private token;
    SmartWalletFactory private factory;
    address private owner;
    address private placed = address(0x9147CED);

    function setUp() public {
        lens = new VerificationLens();
        token = new AskingToken();
        factory = SmartWalletFactory(ALLOWED_FACTORY);
        vm.etch(ALLOWED_FACTORY, address(new SmartWalletFactory()).code);
        owner = vm.addr(KEY);
    }

    function test_a_wallet_accepts_its_owner_however_it_came_to_be() public {
        address created = factory.createAccount(owner, 7);
        place(address(new SmartWallet(address(0))), uint256(uint160(owner)));
        vm.etch(owner, created.code);
        address[3] memory wallets = [created, placed, owner];
        for (uint256 i = 0; i < wallets.length; ++i) {
            require(SmartWallet(payable(wallets[i])).owner() == owner, "owner");
            expectAnswer(wallets[i], signed(KEY), ACCEPTED);
            expectAnswer(wallets[i], abi.encode(0, signed(KEY)), ACCEPTED);
            expectAnswer(wallets[i], signed(KEY + 1), REFUSED);
            require(!lookAt(wallets[i], signed(KEY + 1)).succeeds, "another key");
            require(lookAt(wallets[i], signed(KEY)).succeeds, "65 bytes");
            require(lookAt(wallets[i], abi.encode(0, signed(KEY))).succeeds, "wrapped");
        }
    }

    function test_a_malformed_signature_is_refused() public {
        bytes memory ecdsa = signed(KEY);
        bytes memory ones = new bytes(192);
        for (uint256 i = 0; i < ones.length; ++i) ones[i] = 0xff;
        bytes memory withoutParity = signed(KEY);
        withoutParity[64] = 0;
        bytes[13] memory malformed = [
            bytes(""),
            new bytes(64),
            new bytes(65),
            withoutParity,
            bytes.concat(ecdsa, hex"00"),
            new bytes(192),
            ones,
            abi.encode(1, ecdsa),
            abi.encode(0, new bytes(65)),
            abi.encode(0, new bytes(66)),
            bytes.concat(abi.encode(0, ecdsa), hex"00"),
            abi.encodePacked(uint256(0), uint256(64), uint256(65), ecdsa),
            new bytes(10_000)
        ];
        place(address(new SmartWallet(address(0))), uint256(uint160(owner)));
        for (uint256 i = 0; i < malformed.length; ++i) expectAnswer(placed, malformed[i], REFUSED);
        require(SmartWallet(payable(placed)).isValidSignature(keccak256("other"), ecdsa) == REFUSED, "other digest");
    }

    /// forge-config: default.evm_version = "prague"
    function test_a_delegated_account_signs_with_its_own_key_or_its_owners() public {
        vm.etch(owner, bytes.concat(hex"ef0100", bytes20(address(new SmartWallet(address(0))))));
        VerificationLens.Facts memory fact = lookAt(owner, signed(KEY));
        require(fact.succeeds && fact.payerCodeSize == 23, "own key");
        require(!lookAt(owner, signed(KEY + 1)).succeeds, "another key");
        vm.store(owner, 0, bytes32(uint256(uint160(vm.addr(KEY + 1)))));
        require(lookAt(owner, signed(KEY + 1)).succeeds, "owner's key");
        require(!lookAt(owner, signed(KEY)).succeeds, "own key, with an owner");
        vm.etch(owner, bytes.concat(hex"ef0100", bytes20(address(new GasBurner()))));
        fact = lookAt(owner, signed(KEY));
        require(!fact.succeeds && !fact.signatureAccepted && fact.payerCodeSize == 23, "burner");
    }

    function test_an_account_with_a_wallets_code_takes_ether() public {
        vm.etch(owner, address(new SmartWallet(address(0))).code);
        vm.deal(address(this), 1);
        (bool done,) = owner.call{value: 1}("");
        require(done && owner.balance == 1, "refused");
    }

    function test_the_factory_keeps_its_promise() public {
        address promised = factory.getAddress(owner, 1);
        require(promised != factory.getAddress(owner, 2), "salt");
        require(promised != factory.getAddress(address(this), 1), "owner");
        for (uint256 i = 0; i < 2; ++i) {
            require(factory.createAccount(owner, 1) == promised && promised.code.length != 0, "address");
        }
    }

    function test_the_lens_deploys_a_wallet() public {
        address payer = factory.getAddress(owner, 1);
        VerificationLens.Facts memory fact = lookAt(payer, abi.encode(0, signed(KEY)));
        require(fact.succeeds && fact.isDeployed && fact.payerCodeSize == 0, "deployed");
        fact = lookAt(payer, signed(KEY + 1));
        require(!fact.succeeds && fact.isDeployed && !fact.signatureAccepted, "another key");
    }

    function test_a_hostile_factory_leaves_nothing_at_its_promise() public {
        address payer = factory.getAddress(owner, 1);
        vm.etch(ALLOWED_FACTORY, address(new HostileFactory()).code);
        require(factory.getAddress(owner, 1) == payer, "another promise");
        for (uint256 way = 0; way < 3; ++way) {
            vm.store(ALLOWED_FACTORY, 0, bytes32(way));
            VerificationLens.Facts memory fact = lookAt(payer, signed(KEY));
            require(fact.isSeen && fact.wasTried && !fact.isDeployed && !fact.succeeds, "outcome");
            require(way != 0 || fact.gasUsed == DEPLOY, "burns");
            require(way != 1 || fact.gasUsed < 50_000, "does nothing");
            require(way != 2 || fact.gasUsed > 100_000, "deploys elsewhere");
        }
    }

    function test_a_liar_accepts_only_what_nobody_pays_for() public {
        for (uint256 burns = 0; burns < 2; ++burns) {
            place(address(new LiarWallet()), burns);
            vm.txGasPrice(0);
            require(lookAt(placed, "").succeeds, "in a call");
            vm.txGasPrice(1);
            VerificationLens.Facts memory fact = lookAt(placed, "");
            require(!fact.succeeds && !fact.signatureAccepted, "in a transaction");
            require(burns == 1 ? fact.gasUsed > CONTRACT * 9 / 10 : fact.gasUsed < 50_000, "gas");
        }
    }

    function test_a_bomb_is_paid_for_by_whoever_copies_it() public {
        place(address(new BombWallet()), 0);
        VerificationLens.Facts memory fact = lookAt(placed, "");
        require(fact.succeeds && fact.gasUsed > 200_000, "accepts");
        place(address(new BombWallet()), 1);
        fact = lookAt(placed, "");
        require(!fact.succeeds && !fact.signatureAccepted && fact.gasUsed > 200_000, "reverts");
    }

    function place(address wallet, uint256 slot0) private {
        vm.etch(placed, wallet.code);
        vm.store(placed, 0, bytes32(slot0));
    }

    function expectAnswer(address wallet, bytes memory signature, bytes4 expected) private view {
        require(SmartWallet(payable(wallet)).isValidSignature(DIGEST, signature) == expected, "answer");
    }

    function lookAt(address payer, bytes memory signature) private returns (VerificationLens.Facts memory) {
        token.mint(payer, 1);
        VerificationLens.Payment[] memory items = new VerificationLens.Payment[](1);
        VerificationLens.Payment memory item = items[0];
        (item.asset, item.payer, item.payee, item.amount) = (address(token), payer, address(0xB0B), 1);
        (item.nonce, item.digest, item.signature) = (DIGEST, DIGEST, signature);
        (item.factory, item.factoryData) = (ALLOWED_FACTORY, abi.encodeCall(factory.createAccount, (owner, 1)));
        return lens.look(items, VerificationLens.Limits(170_000, CONTRACT, DEPLOY)).facts[0];
    }

    function signed(uint256 key) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, DIGEST);
        return abi.encodePacked(r, s, v);
    }
}
